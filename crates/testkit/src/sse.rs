//! A parser for server-sent events.

/// One frame: what stood between two blank lines.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Frame {
    /// The `id:` of this frame, if it has one.
    pub id: Option<String>,
    /// The `event:` name, if it has one.
    pub event: Option<String>,
    /// The `data:` lines, joined by newlines; nothing if there is none.
    pub data: Option<String>,
    /// The `retry:` value in milliseconds, if it has one.
    pub retry: Option<u64>,
}

/// Turns bytes, cut anywhere, into frames. A frame that was not ended by a blank line is never returned.
#[derive(Debug, Default)]
pub struct SseParser {
    line: Vec<u8>,
    frame: Frame,
    begun: bool,
}

impl SseParser {
    /// Takes more bytes and returns the frames that they complete.
    pub fn push(&mut self, bytes: &[u8]) -> Vec<Frame> {
        let mut frames = Vec::new();
        for &byte in bytes {
            if byte != b'\n' {
                self.line.push(byte);
                continue;
            }
            let line = std::mem::take(&mut self.line);
            let line = String::from_utf8_lossy(&line);
            let line = line.strip_suffix('\r').unwrap_or(&line);
            if line.is_empty() {
                if std::mem::take(&mut self.begun) {
                    frames.push(std::mem::take(&mut self.frame));
                }
            } else {
                self.field(line);
            }
        }
        frames
    }

    fn field(&mut self, line: &str) {
        let (name, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match name {
            "id" => self.frame.id = Some(value.to_string()),
            "event" => self.frame.event = Some(value.to_string()),
            "retry" => self.frame.retry = value.parse().ok(),
            "data" => match &mut self.frame.data {
                Some(data) => {
                    data.push('\n');
                    data.push_str(value);
                }
                None => self.frame.data = Some(value.to_string()),
            },
            _ => return,
        }
        self.begun = true;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STREAM: &str =
        "retry: 200\n\nid: 1\ndata: {\"a\":\ndata: 1}\n\n: a comment\n\nevent: x\r\nid: 2\r\ndata:b\r\n\r\ndata: half";

    #[test]
    fn frames_are_the_same_however_the_bytes_are_cut() {
        let whole = SseParser::default().push(STREAM.as_bytes());
        assert_eq!(whole.len(), 3);
        assert_eq!(whole[0].retry, Some(200));
        assert_eq!((whole[1].id.as_deref(), whole[1].data.as_deref()), (Some("1"), Some("{\"a\":\n1}")));
        assert_eq!((whole[2].event.as_deref(), whole[2].data.as_deref()), (Some("x"), Some("b")));
        for size in 1..STREAM.len() {
            let mut parser = SseParser::default();
            let cut: Vec<Frame> = STREAM.as_bytes().chunks(size).flat_map(|piece| parser.push(piece)).collect();
            assert_eq!(cut, whole, "in pieces of {size}");
        }
    }
}
