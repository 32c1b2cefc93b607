//! Matching by `*` and `?`.

/// True if the pattern matches the whole text.
///
/// `*` is any run of characters, slashes and newlines among them; `?` is one character. A trailing ` *` also matches
/// nothing at all, so that `git *` covers `git`. Case matters.
pub(crate) fn matches(pattern: &str, text: &str) -> bool {
    let pattern: Vec<char> = pattern.chars().collect();
    let text: Vec<char> = text.chars().collect();
    match pattern.strip_suffix(&[' ', '*']) {
        Some(head) if run(head, &text) => true,
        _ => run(&pattern, &text),
    }
}

/// The usual two-pointer walk: on a mismatch the last `*` takes one character more. Time is O(pattern x text).
fn run(pattern: &[char], text: &[char]) -> bool {
    let (mut p, mut t) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while t < text.len() {
        match pattern.get(p) {
            Some('*') => {
                star = Some((p, t));
                p += 1;
            }
            Some(&c) if c == '?' || c == text[t] => {
                p += 1;
                t += 1;
            }
            _ => match star {
                Some((at, taken)) => {
                    star = Some((at, taken + 1));
                    p = at + 1;
                    t = taken + 1;
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|&c| c == '*')
}

#[cfg(test)]
mod tests {
    use super::matches;

    #[test]
    fn a_pattern_covers_the_whole_text() {
        for (pattern, text) in [
            ("*", ""),
            ("*", "a/b\nc"),
            ("git *", "git"),
            ("git *", "git status"),
            ("git push*", "git push origin"),
            ("a?c", "abc"),
            ("*.env", "x/.env"),
            ("a*b*c", "a--b--b--c"),
            ("* *", "git"),
        ] {
            assert!(matches(pattern, text), "{pattern:?} {text:?}");
        }
        for (pattern, text) in
            [("git *", "gitx"), ("git", "git status"), ("Git", "git"), ("a?c", "ac"), ("*.env", "x.envrc"), ("", "a")]
        {
            assert!(!matches(pattern, text), "{pattern:?} {text:?}");
        }
    }
}
