//! Sets of completion indexes in the form that `status.completedIndexes` has: `0,2-4,7`. Pure.

use std::collections::BTreeSet;

/// Indexes from 0 up.
pub type Indexes = BTreeSet<i32>;

/// Reads the text form; what cannot be read, or is not below `end`, is left out, as upstream does.
pub fn parse(text: &str, end: i32) -> Indexes {
    let mut indexes = Indexes::new();
    for part in text.split(',').filter(|part| !part.is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        if let (Ok(first), Ok(last)) = (first.parse::<i32>(), last.parse::<i32>()) {
            indexes.extend(first.max(0)..=last.min(end - 1));
        }
    }
    indexes
}

/// The text form: runs of three and more as `a-b`.
pub fn print(indexes: &Indexes) -> String {
    let mut runs: Vec<(i32, i32)> = Vec::new();
    for index in indexes {
        match runs.last_mut() {
            Some((_, last)) if *last + 1 == *index => *last = *index,
            _ => runs.push((*index, *index)),
        }
    }
    let text = |(first, last): &(i32, i32)| match last - first {
        0 => first.to_string(),
        1 => format!("{first},{last}"),
        _ => format!("{first}-{last}"),
    };
    runs.iter().map(text).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn indexes_read_and_print_as_upstream() {
        for text in ["", "0", "0,1", "0,2-4,7", "1-3"] {
            assert_eq!(print(&parse(text, 10)), text);
        }
        assert_eq!(print(&parse("0-20,x,3-1", 5)), "0-4");
    }
}
