//! Names of targets with `*`, `?` and `[a-z]`.

/// The names that match, in their order; a name that is there means itself.
pub(crate) fn select<'a>(pattern: &str, names: &[&'a str]) -> Result<Vec<&'a str>, String> {
    if let Some(name) = names.iter().find(|name| **name == pattern) {
        return Ok(vec![name]);
    }
    let found: Vec<&str> = names
        .iter()
        .copied()
        .filter(|name| matches(pattern, name))
        .collect();
    if found.is_empty() {
        return Err(format!("could not find any target matching '{pattern}'"));
    }
    Ok(found)
}

pub(crate) fn is_pattern(text: &str) -> bool {
    text.contains(['*', '?', '[', ']'])
}

pub(crate) fn matches(pattern: &str, name: &str) -> bool {
    let pattern: Vec<char> = pattern.chars().collect();
    let name: Vec<char> = name.chars().collect();
    // The place of the last star, and how much of the name it has taken.
    let mut star: Option<(usize, usize)> = None;
    let (mut p, mut n) = (0, 0);
    while n < name.len() {
        let step = match pattern.get(p) {
            Some('*') => {
                star = Some((p, n));
                p += 1;
                continue;
            }
            Some('?') => Some(p + 1),
            Some('[') => class(&pattern, p, name[n]),
            Some('\\') => (pattern.get(p + 1) == Some(&name[n])).then_some(p + 2),
            Some(c) => (*c == name[n]).then_some(p + 1),
            None => None,
        };
        match (step, star) {
            (Some(next), _) => {
                p = next;
                n += 1;
            }
            (None, Some((at, taken))) => {
                star = Some((at, taken + 1));
                p = at + 1;
                n = taken + 1;
            }
            (None, None) => return false,
        }
    }
    pattern[p..].iter().all(|c| *c == '*')
}

/// Behind the class, if the letter is in it.
fn class(pattern: &[char], start: usize, letter: char) -> Option<usize> {
    let negated = pattern.get(start + 1) == Some(&'^');
    let mut at = start + 1 + usize::from(negated);
    let mut found = false;
    let first = at;
    loop {
        let low = *pattern.get(at)?;
        if low == ']' && at > first {
            return (found != negated).then_some(at + 1);
        }
        let high = if pattern.get(at + 1) == Some(&'-') && pattern.get(at + 2).is_some_and(|c| *c != ']') {
            at += 2;
            pattern[at]
        } else {
            low
        };
        found |= (low..=high).contains(&letter);
        at += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_select_names() {
        for (pattern, name, expected) in [
            ("*", "", true),
            ("app-*", "app-x", true),
            ("*-x-*", "a-x-b-x-c", true),
            ("a?c", "abc", true),
            ("a?c", "ac", false),
            ("[a-c]x", "bx", true),
            ("[^a-c]x", "bx", false),
            ("[a", "a", false),
            ("a*b", "aXbX", false),
        ] {
            assert_eq!(matches(pattern, name), expected, "{pattern} {name}");
        }
        assert_eq!(select("a*", &["a", "ab", "b"]).unwrap(), ["a", "ab"]);
        assert!(select("c", &["a"]).unwrap_err().contains("'c'"));
    }
}
