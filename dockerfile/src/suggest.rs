//! "Did you mean": the nearest known word for one that is not known.

/// Words further away than this are not worth proposing.
const FARTHEST: usize = 2;

/// Whether `FROM` and `from` are the same word.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Case {
    Sensitive,
    Insensitive,
}

/// The option that is nearest to `word`, in the case `word` is written in. An option equal to `word` ends the search:
/// then the error was not about the word.
pub fn nearest<'a>(word: &str, options: impl IntoIterator<Item = &'a str>, case: Case) -> Option<String> {
    let fold = |text: &str| match case {
        Case::Sensitive => text.to_owned(),
        Case::Insensitive => text.to_lowercase(),
    };
    let wanted = fold(word);
    let mut best: Option<(usize, String)> = None;
    for option in options {
        let option = fold(option);
        let distance = distance(&wanted, &option);
        if distance == 0 {
            return None;
        }
        if distance <= FARTHEST && best.as_ref().is_none_or(|(nearest, _)| distance < *nearest) {
            best = Some((distance, option));
        }
    }
    let (_, option) = best?;
    let shouted = case == Case::Insensitive && word == word.to_uppercase();
    Some(if shouted { option.to_uppercase() } else { option })
}

/// ` (did you mean from?)`, or nothing.
pub fn hint<'a>(word: &str, options: impl IntoIterator<Item = &'a str>, case: Case) -> String {
    nearest(word, options, case).map_or_else(String::new, |near| format!(" (did you mean {near}?)"))
}

/// Levenshtein distance in characters. Words that differ in length by more than we would accept are not measured, so
/// a word of a megabyte costs nothing.
fn distance(left: &str, right: &str) -> usize {
    let (left, right): (Vec<char>, Vec<char>) = (left.chars().collect(), right.chars().collect());
    if left.len().abs_diff(right.len()) > FARTHEST {
        return FARTHEST + 1;
    }
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (i, a) in left.iter().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, b) in right.iter().enumerate() {
            let replaced = diagonal + usize::from(a != b);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[right.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_word_is_proposed_in_the_case_it_was_asked_in() {
        let instructions = ["ADD", "ARG", "COPY", "FROM", "RUN", "USER"];
        for (word, expected) in [
            ("FOO", Some("FROM")),
            ("FRMO", Some("FROM")),
            ("frm", Some("from")),
            ("Rum", Some("run")),
            ("KOPY", Some("COPY")),
            ("FLAVOUR", None),
            ("run", None),
            ("", None),
        ] {
            assert_eq!(
                nearest(word, instructions, Case::Insensitive).as_deref(),
                expected,
                "{word}"
            );
        }
    }

    #[test]
    fn case_counts_where_it_matters() {
        assert_eq!(
            nearest("form", ["from", "chown"], Case::Sensitive).as_deref(),
            Some("from")
        );
        assert_eq!(nearest("FROM", ["from"], Case::Sensitive), None);
    }
}
