//! Putting two lists beside each other by the keys of their elements.

/// Pairs of places: in both lists, or in one of them only. In order of both, with as many pairs as there can be; the earliest
/// of those.
pub fn align<K: PartialEq>(recorded: &[K], here: &[K]) -> Vec<(Option<usize>, Option<usize>)> {
    // The longest common subsequence of what follows each pair of places.
    let width = here.len() + 1;
    let mut longest = vec![0_usize; (recorded.len() + 1) * width];
    for r in (0..recorded.len()).rev() {
        for h in (0..here.len()).rev() {
            longest[r * width + h] = if recorded[r] == here[h] {
                longest[(r + 1) * width + h + 1] + 1
            } else {
                longest[(r + 1) * width + h].max(longest[r * width + h + 1])
            };
        }
    }
    let (mut r, mut h) = (0, 0);
    let mut pairs = Vec::new();
    while r < recorded.len() || h < here.len() {
        if r < recorded.len() && h < here.len() && recorded[r] == here[h] {
            pairs.push((Some(r), Some(h)));
            r += 1;
            h += 1;
        } else if h >= here.len() || (r < recorded.len() && longest[(r + 1) * width + h] >= longest[r * width + h + 1])
        {
            pairs.push((Some(r), None));
            r += 1;
        } else {
            pairs.push((None, Some(h)));
            h += 1;
        }
    }
    pairs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_or_more_stands_alone() {
        let pairs = align(&["a", "b", "c", "d"], &["a", "c", "x", "d"]);
        let expected = [(Some(0), Some(0)), (Some(1), None), (Some(2), Some(1)), (None, Some(2)), (Some(3), Some(3))];
        assert_eq!(pairs, expected);
    }
}
