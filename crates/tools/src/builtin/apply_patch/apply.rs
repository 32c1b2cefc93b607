//! Replacing lines of a text.

use super::parse::Chunk;

/// In what two lines may differ and still be the same, one more with each.
const LIKENESSES: [fn(&str) -> String; 4] = [str::to_owned, trim_end, trim, plain];

fn trim_end(line: &str) -> String {
    line.trim_end().into()
}

fn trim(line: &str) -> String {
    line.trim().into()
}

/// Models write plain quotes, hyphens and spaces where a text has typographic ones.
fn plain(line: &str) -> String {
    let plain = |c: char| match c {
        '\u{2018}'..='\u{201b}' => "'".into(),
        '\u{201c}'..='\u{201f}' => "\"".into(),
        '\u{2010}'..='\u{2015}' => "-".into(),
        '\u{2026}' => "...".into(),
        '\u{a0}' => " ".into(),
        other => other.to_string(),
    };
    line.trim().chars().map(plain).collect()
}

/// The text after all chunks, which come in the order of the text. It ends with a line end; new lines end as the others.
///
/// # Errors
/// The lines that are not there.
pub(super) fn apply(text: &str, chunks: &[Chunk]) -> Result<String, String> {
    let (mark, text) = match text.strip_prefix('\u{feff}') {
        Some(text) => ("\u{feff}", text),
        None => ("", text),
    };
    let end = if text.contains("\r\n") { "\r\n" } else { "\n" };
    let whole: Vec<&str> = text.split_inclusive('\n').collect();
    let lines: Vec<&str> = whole.iter().map(|line| line.trim_end_matches('\n').trim_end_matches('\r')).collect();
    let mut result = mark.to_owned();
    // Up to here everything is in the result.
    let mut at = 0;
    let keep = |result: &mut String, range: std::ops::Range<usize>| {
        for line in &whole[range] {
            result.push_str(line);
            if !line.ends_with('\n') {
                result.push_str(end);
            }
        }
    };
    for chunk in chunks {
        let mut from = at;
        if let Some(context) = &chunk.context {
            from = find(&lines, std::slice::from_ref(context), at, false).ok_or_else(|| context.clone())? + 1;
        }
        let place = match (&chunk.old[..], &chunk.context) {
            ([], Some(_)) => Some(from),
            ([], None) => Some(lines.len()),
            (old, _) => find(&lines, old, from, chunk.at_end),
        };
        let place = place.ok_or_else(|| chunk.old.join("\n"))?;
        keep(&mut result, at..place);
        for line in &chunk.new {
            result.push_str(line);
            result.push_str(end);
        }
        at = place + chunk.old.len();
    }
    keep(&mut result, at..whole.len());
    Ok(result)
}

/// Where `wanted` stands in `lines`, from line `from` on: exactly so if it does, else as alike as can be.
fn find(lines: &[&str], wanted: &[String], from: usize, at_end: bool) -> Option<usize> {
    let last = lines.len().checked_sub(wanted.len()).filter(|last| *last >= from)?;
    LIKENESSES.iter().find_map(|likeness| {
        let wanted: Vec<String> = wanted.iter().map(|line| likeness(line)).collect();
        let fits = |at: &usize| lines[*at..].iter().zip(&wanted).all(|(line, wanted)| likeness(line) == *wanted);
        let end = Some(last).filter(|last| at_end && fits(last));
        end.or_else(|| (from..=last).find(fits))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chunk(context: Option<&str>, old: &[&str], new: &[&str], at_end: bool) -> Chunk {
        let texts = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
        Chunk { context: context.map(str::to_owned), old: texts(old), new: texts(new), at_end }
    }

    #[test]
    fn chunks_are_applied_in_order_at_their_places() {
        let text = "a\nx\nb\nx\nc\nx\n";
        let replace = |context, at_end| apply(text, &[chunk(context, &["x"], &["y"], at_end)]).unwrap();
        assert_eq!(replace(None, false), "a\ny\nb\nx\nc\nx\n");
        assert_eq!(replace(Some("b"), false), "a\nx\nb\ny\nc\nx\n");
        assert_eq!(replace(None, true), "a\nx\nb\nx\nc\ny\n");
        let two = [chunk(None, &["x"], &[], false), chunk(None, &["x"], &["1", "2"], false)];
        assert_eq!(apply(text, &two).unwrap(), "a\nb\n1\n2\nc\nx\n");
        assert_eq!(apply(text, &[chunk(None, &["x", "a"], &[], false)]).unwrap_err(), "x\na");
        assert_eq!(apply(text, &[chunk(Some("zzz"), &["x"], &[], false)]).unwrap_err(), "zzz");
    }

    #[test]
    fn lines_without_old_ones_go_behind_the_context_or_to_the_end() {
        assert_eq!(apply("a\nb", &[chunk(None, &[], &["c"], false)]).unwrap(), "a\nb\nc\n");
        assert_eq!(apply("a\nb\n", &[chunk(Some("a"), &[], &["c"], false)]).unwrap(), "a\nc\nb\n");
        assert_eq!(apply("", &[chunk(None, &[], &["c"], false)]).unwrap(), "c\n");
    }

    #[test]
    fn an_exact_place_is_preferred_to_one_that_is_alike() {
        assert_eq!(apply("  x\nx\n", &[chunk(None, &["x"], &["y"], false)]).unwrap(), "  x\ny\n");
        assert_eq!(apply("a  \n", &[chunk(None, &["a"], &["b"], false)]).unwrap(), "b\n");
        assert_eq!(
            apply("\u{201c}a\u{201d} \u{2013} b\n", &[chunk(None, &["\"a\" - b"], &["c"], false)]).unwrap(),
            "c\n"
        );
    }

    #[test]
    fn marks_and_line_ends_are_kept() {
        let result = apply("\u{feff}a\r\nb\r\nc", &[chunk(None, &["a"], &["1", "2"], false)]).unwrap();
        assert_eq!(result, "\u{feff}1\r\n2\r\nb\r\nc\r\n");
    }
}
