//! What is in a file, as far as a model can be shown it.

use super::Range;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek};
use std::path::Path;

/// Characters of a line that are shown.
const MAX_LINE_CHARS: usize = 2000;

/// Bytes of a line that are looked at: no character has more than four.
const MAX_LINE_BYTES: usize = MAX_LINE_CHARS * 4 + 4;

/// A larger image or PDF is not attached.
const MAX_ATTACHMENT_BYTES: u64 = 20 * 1024 * 1024;

/// How much of the beginning tells text from other things.
const SAMPLE_BYTES: u64 = 4096;

/// Endings of file names that never stand for text.
const BINARY_ENDINGS: [&str; 27] = [
    "zip", "tar", "gz", "exe", "dll", "so", "class", "jar", "war", "7z", "doc", "docx", "xls", "xlsx", "ppt", "pptx",
    "odt", "ods", "odp", "bin", "dat", "obj", "o", "a", "lib", "wasm", "pyc",
];

/// What is in a file.
pub(super) enum Content {
    /// Text.
    Text(Lines),
    /// An image or a PDF.
    Attachment {
        /// Its kind.
        mime: &'static str,
        /// The whole of it.
        bytes: Vec<u8>,
    },
    /// Something else.
    Binary,
}

/// Some lines of a file.
pub(super) struct Lines {
    /// Their texts, without line ends, cut where too long.
    pub(super) lines: Vec<String>,
    /// The number of the first one, counted from 1.
    pub(super) first: usize,
    /// How many lines the file has.
    pub(super) total: usize,
    /// Lines were left out because of the bytes, not because of the limit.
    pub(super) full: bool,
}

/// Reads an opened file. `stop` is asked now and then; once it is true the read ends with [`io::ErrorKind::Interrupted`].
pub(super) fn read(path: &Path, mut file: File, range: Range, stop: &dyn Fn() -> bool) -> io::Result<Content> {
    let mut sample = Vec::new();
    (&mut file).take(SAMPLE_BYTES).read_to_end(&mut sample)?;
    file.rewind()?;
    if let Some(mime) = attachable(&sample) {
        let mut bytes = Vec::new();
        file.take(MAX_ATTACHMENT_BYTES + 1).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > MAX_ATTACHMENT_BYTES {
            return Err(io::Error::other(format!("larger than {} MiB", MAX_ATTACHMENT_BYTES >> 20)));
        }
        return Ok(Content::Attachment { mime, bytes });
    }
    let ending = path.extension().map(|ending| ending.to_string_lossy().to_lowercase());
    if ending.is_some_and(|ending| BINARY_ENDINGS.contains(&&*ending)) || is_binary(&sample) {
        return Ok(Content::Binary);
    }
    lines(file, range, stop).map(Content::Text)
}

/// Told by what is in it: a name promises nothing.
/// What kind of image or document it is, by its beginning.
pub(crate) fn attachable(sample: &[u8]) -> Option<&'static str> {
    match sample {
        [0x89, b'P', b'N', b'G', b'\r', b'\n', 0x1a, b'\n', ..] => Some("image/png"),
        [0xff, 0xd8, 0xff, ..] => Some("image/jpeg"),
        [b'G', b'I', b'F', b'8', b'7' | b'9', b'a', ..] => Some("image/gif"),
        [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'E', b'B', b'P', ..] => Some("image/webp"),
        [b'%', b'P', b'D', b'F', b'-', ..] => Some("application/pdf"),
        _ => None,
    }
}

/// A NUL byte, or more than 30% control characters.
fn is_binary(sample: &[u8]) -> bool {
    let control = sample.iter().filter(|byte| matches!(byte, 0..9 | 14..32)).count();
    sample.contains(&0) || control * 10 > sample.len() * 3
}

fn lines(file: File, range: Range, stop: &dyn Fn() -> bool) -> io::Result<Lines> {
    let mut reader = BufReader::with_capacity(64 * 1024, file);
    let mut lines = Lines { lines: Vec::new(), first: range.offset, total: 0, full: false };
    let mut bytes = 0;
    let mut line = Vec::new();
    while next_line(&mut reader, &mut line, stop)? {
        lines.total += 1;
        if lines.total < range.offset || lines.lines.len() >= range.limit || lines.full {
            continue;
        }
        let text = shown(&line);
        bytes += text.len() + 1;
        // The first line is shown in any case, or a reader would never get beyond it.
        if bytes > range.max_bytes && !lines.lines.is_empty() {
            lines.full = true;
        } else {
            lines.lines.push(text);
        }
    }
    Ok(lines)
}

/// Reads up to the next line end; keeps the first [`MAX_LINE_BYTES`] bytes. False at the end of the file.
fn next_line(reader: &mut impl BufRead, line: &mut Vec<u8>, stop: &dyn Fn() -> bool) -> io::Result<bool> {
    line.clear();
    let mut any = false;
    loop {
        let buffer = reader.fill_buf()?;
        if buffer.is_empty() {
            return Ok(any);
        }
        if stop() {
            return Err(io::ErrorKind::Interrupted.into());
        }
        any = true;
        let end = buffer.iter().position(|byte| *byte == b'\n');
        let piece = &buffer[..end.unwrap_or(buffer.len())];
        line.extend_from_slice(&piece[..piece.len().min(MAX_LINE_BYTES.saturating_sub(line.len()))]);
        let used = end.map_or(buffer.len(), |at| at + 1);
        reader.consume(used);
        if end.is_some() {
            return Ok(true);
        }
    }
}

fn shown(line: &[u8]) -> String {
    let text = String::from_utf8_lossy(line.strip_suffix(b"\r").unwrap_or(line));
    match text.char_indices().nth(MAX_LINE_CHARS) {
        Some((cut, _)) => format!("{}... (line truncated to {MAX_LINE_CHARS} chars)", &text[..cut]),
        None => text.into_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_make_a_file_binary() {
        assert!(is_binary(b"a\0b"));
        assert!(is_binary(b"\x01\x02\x03ab"));
        assert!(!is_binary(b"plain\ttext\r\nwith \x1b[1mcolour\x1b[0m"));
        assert!(!is_binary(b""));
    }
}
