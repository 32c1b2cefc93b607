//! The text of a patch.

/// What a patch does to one file.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// Makes it with this content.
    Add { path: String, content: String },
    /// Removes it.
    Delete { path: String },
    /// Changes it, and moves it if `to` is given.
    Update { path: String, to: Option<String>, chunks: Vec<Chunk> },
}

/// Lines of a file that are replaced by others.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Chunk {
    /// A line somewhere above.
    pub(super) context: Option<String>,
    /// The lines that are there.
    pub(super) old: Vec<String>,
    /// The lines that are there afterwards.
    pub(super) new: Vec<String>,
    /// The old lines are the last ones of the file.
    pub(super) at_end: bool,
}

const BEGIN: &str = "*** Begin Patch";
const END: &str = "*** End Patch";
const END_OF_FILE: &str = "*** End of File";

/// Parses a patch. What stands around it, such as the shell's `<<EOF`, is left out.
///
/// # Errors
/// Says which line is none of a patch.
pub(super) fn parse(text: &str) -> Result<Vec<Change>, String> {
    let lines: Vec<&str> = text.lines().collect();
    let marker = |marker: &str| lines.iter().position(|line| line.trim() == marker);
    let (Some(begin), Some(end)) = (marker(BEGIN), marker(END)) else {
        return Err(format!("The patch needs the lines `{BEGIN}` and `{END}`."));
    };
    let body = lines.get(begin + 1..end).ok_or_else(|| format!("`{END}` stands before `{BEGIN}`."))?;
    let mut rest = body;
    let mut changes = Vec::new();
    while let Some((line, after)) = rest.split_first() {
        let length = after.iter().position(|line| is_heading(line)).unwrap_or(after.len());
        let (section, next) = after.split_at(length);
        rest = next;
        let path = |heading: &str| line.strip_prefix(heading).map(|path| path.trim().to_owned());
        if let Some(path) = path("*** Add File:") {
            changes.push(Change::Add { path, content: added(section)? });
        } else if let Some(path) = path("*** Delete File:") {
            if let Some(line) = section.iter().find(|line| !line.trim().is_empty()) {
                return Err(unexpected(line));
            }
            changes.push(Change::Delete { path });
        } else if let Some(path) = path("*** Update File:") {
            let to = section.first().and_then(|line| line.strip_prefix("*** Move to:")).map(|to| to.trim().to_owned());
            let chunks = chunks(&section[usize::from(to.is_some())..])?;
            changes.push(Change::Update { path, to, chunks });
        } else if !line.trim().is_empty() {
            return Err(unexpected(line));
        }
    }
    if changes.is_empty() { Err("The patch names no file.".into()) } else { Ok(changes) }
}

fn is_heading(line: &str) -> bool {
    ["*** Add File:", "*** Delete File:", "*** Update File:"].iter().any(|heading| line.starts_with(heading))
}

fn unexpected(line: &str) -> String {
    format!("Unexpected line in the patch: {line}")
}

fn added(section: &[&str]) -> Result<String, String> {
    let mut content = String::new();
    for line in without_blank_end(section) {
        content.push_str(line.strip_prefix('+').ok_or_else(|| unexpected(line))?);
        content.push('\n');
    }
    Ok(content)
}

fn chunks(section: &[&str]) -> Result<Vec<Chunk>, String> {
    let mut chunks: Vec<Chunk> = Vec::new();
    for line in without_blank_end(section) {
        if let Some(context) = line.strip_prefix("@@") {
            // As in unified diffs, a second @@ may close the place.
            let context = context.trim().trim_end_matches("@@").trim_end();
            let context = Some(context.to_owned()).filter(|context| !context.is_empty());
            chunks.push(Chunk { context, ..Chunk::default() });
            continue;
        }
        if chunks.last().is_none_or(|chunk| chunk.at_end) {
            chunks.push(Chunk::default());
        }
        let Some(chunk) = chunks.last_mut() else { continue };
        match line.as_bytes().first() {
            _ if line.trim_end() == END_OF_FILE => chunk.at_end = true,
            Some(b'-') => chunk.old.push(line[1..].into()),
            Some(b'+') => chunk.new.push(line[1..].into()),
            Some(b' ') => unchanged(chunk, &line[1..]),
            // Where an unchanged line is empty, the space before it is often left out.
            None => unchanged(chunk, ""),
            Some(_) => return Err(unexpected(line)),
        }
    }
    Ok(chunks)
}

fn unchanged(chunk: &mut Chunk, text: &str) {
    chunk.old.push(text.into());
    chunk.new.push(text.into());
}

/// Empty lines before the next heading separate sections and belong to none.
fn without_blank_end<'a, 'b>(mut section: &'a [&'b str]) -> &'a [&'b str] {
    while let Some((last, before)) = section.split_last()
        && last.is_empty()
    {
        section = before;
    }
    section
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_patch_names_files_and_what_is_done_to_them() {
        let text = "cat <<'EOF'\n*** Begin Patch\n*** Add File: a.txt\n+one\n+\n\n*** Delete File: b.txt\n\
                    *** Update File: c.txt\n*** Move to: d.txt\n@@ fn main() {\n-x\n+y\n z\n\n+end\n*** End of File\n\
                    *** End Patch\nEOF\n";
        let texts = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        let chunk = Chunk {
            context: Some("fn main() {".into()),
            old: texts(&["x", "z", ""]),
            new: texts(&["y", "z", "", "end"]),
            at_end: true,
        };
        assert_eq!(
            parse(text).unwrap(),
            [
                Change::Add { path: "a.txt".into(), content: "one\n\n".into() },
                Change::Delete { path: "b.txt".into() },
                Change::Update { path: "c.txt".into(), to: Some("d.txt".into()), chunks: vec![chunk] },
            ]
        );
    }

    #[test]
    fn what_is_no_patch_is_refused_with_the_line() {
        for (text, told) in [
            ("garbage", "Begin Patch"),
            ("*** End Patch\n*** Begin Patch", "before"),
            ("*** Begin Patch\n*** End Patch", "no file"),
            ("*** Begin Patch\nhello\n*** End Patch", "hello"),
            ("*** Begin Patch\n*** Add File: a\none\n*** End Patch", "one"),
            ("*** Begin Patch\n*** Delete File: a\n-one\n*** End Patch", "-one"),
            ("*** Begin Patch\n*** Update File: a\n@@\nécrit\n*** End Patch", "écrit"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(told), "{error}");
        }
    }
}
