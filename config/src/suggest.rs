//! What a mistyped name may have been meant to be.

/// The candidate nearest to `typed`, if it is near enough to be meant: a third of the letters
/// may differ, and two always, as when neighbours are swapped.
#[must_use]
pub fn nearest<'a>(typed: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let scored = candidates.into_iter().map(|candidate| (distance(typed, candidate), candidate));
    let near = scored.filter(|(distance, candidate)| *distance <= (candidate.len() / 3).max(2));
    near.min_by_key(|(distance, _)| *distance).map(|(_, candidate)| candidate)
}

/// Letters to insert, delete or replace to get from one text to the other. Long texts are not
/// names, and the time grows with the product of the lengths, so both are cut.
fn distance(from: &str, to: &str) -> usize {
    let to: Vec<char> = to.chars().take(64).collect();
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (index, letter) in from.chars().take(64).enumerate() {
        let mut diagonal = index;
        let mut left = index + 1;
        for (cell, other) in row.iter_mut().skip(1).zip(&to) {
            let replaced = diagonal + usize::from(letter != *other);
            diagonal = *cell;
            left = replaced.min(*cell + 1).min(left + 1);
            *cell = left;
        }
        if let Some(first) = row.first_mut() {
            *first = index + 1;
        }
    }
    row.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances_count_edits() {
        let cases = [("", "", 0), ("", "abc", 3), ("abc", "", 3), ("kitten", "sitting", 3)];
        for (from, to, expected) in cases {
            assert_eq!(distance(from, to), expected, "{from} to {to}");
        }
    }

    #[test]
    fn only_near_names_are_suggested() {
        let names = ["steps_per_round", "seed", "start_peers"];
        assert_eq!(nearest("step_per_round", names), Some("steps_per_round"));
        assert_eq!(nearest("sead", names), Some("seed"));
        assert_eq!(nearest("sede", names), Some("seed"));
        assert_eq!(nearest("momentum", names), None);
    }
}
