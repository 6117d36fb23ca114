//! `.env` files: `NAME=value`, with quotes, comments and variables.

use super::{Variables, interpolate};

/// What the file sets; values may refer to what is known and to lines above.
pub(super) fn parse(text: &str, known: &Variables) -> Result<Variables, String> {
    let mut found = Variables::new();
    let mut rest = text.trim_start_matches('\u{feff}');
    let mut number = 0;
    while !rest.is_empty() {
        number += 1;
        let end = rest.find('\n').unwrap_or(rest.len());
        let line = rest[..end].trim();
        let after = rest.get(end + 1..).unwrap_or_default();
        if line.is_empty() || line.starts_with('#') {
            rest = after;
            continue;
        }
        let declared = line.strip_prefix("export ").unwrap_or(line).trim_start();
        let split = declared.find(['=', ':']);
        let Some(split) = split else {
            // A name alone takes over what is known.
            rest = after;
            continue;
        };
        let name = declared[..split].trim();
        if name.is_empty() || name.contains(char::is_whitespace) {
            return Err(format!("line {number}: \"{line}\" is not of the form NAME=value"));
        }
        let start = rest.find(declared).unwrap_or_default() + split + 1;
        let value = rest[start..].trim_start_matches([' ', '\t']);
        let mut scope = known.clone();
        scope.extend(found.clone());
        let fill =
            |text: &str| interpolate::text(text, &scope).map_err(|why| format!("line {number}: {why}"));
        let (value, remaining) = match value.chars().next() {
            Some('\'') => {
                let (inner, remaining) = value[1..]
                    .split_once('\'')
                    .ok_or_else(|| format!("line {number}: a quote is not closed"))?;
                (inner.to_owned(), remaining)
            }
            Some('"') => {
                let end =
                    closing(&value[1..]).ok_or_else(|| format!("line {number}: a quote is not closed"))?;
                (fill(&unescape(&value[1..=end]))?, &value[end + 2..])
            }
            _ => {
                let end = value.find('\n').unwrap_or(value.len());
                let line = &value[..end];
                let line = line.find(" #").map_or(line, |comment| &line[..comment]);
                let line = if line.starts_with('#') { "" } else { line };
                (fill(line.trim())?, &value[end..])
            }
        };
        found.insert(name.to_owned(), value);
        rest = remaining.split_once('\n').map_or("", |(_, after)| after);
    }
    Ok(found)
}

/// The quote that is not escaped.
fn closing(text: &str) -> Option<usize> {
    let mut escaped = false;
    for (at, c) in text.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return Some(at),
            _ => {}
        }
    }
    None
}

fn unescape(text: &str) -> String {
    let mut out = String::new();
    let mut letters = text.chars();
    while let Some(c) = letters.next() {
        if c != '\\' {
            out.push(c);
            continue;
        }
        match letters.next() {
            Some('n') => out.push('\n'),
            Some('r') => out.push('\r'),
            Some('t') => out.push('\t'),
            // Not a variable, then.
            Some('$') => out.push_str("$$"),
            Some(other) => out.push(other),
            None => out.push('\\'),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_set_variables() {
        let known = Variables::from([("HOST".to_owned(), "h".to_owned())]);
        let text = "# comment\nA=1\nexport B = two words # not this\nC='$A'\nD=\"$A \\\"x\\\"\\n${HOST}\"\nE=${A}${X:-y}\n\nF=\nG: yaml\nH=\"a\nb\"\n";
        let found = parse(text, &known).unwrap();
        let expected = [
            ("A", "1"),
            ("B", "two words"),
            ("C", "$A"),
            ("D", "1 \"x\"\nh"),
            ("E", "1y"),
            ("F", ""),
            ("G", "yaml"),
            ("H", "a\nb"),
        ];
        let expected: Variables = expected
            .into_iter()
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect();
        assert_eq!(found, expected);
        assert!(parse("A='x", &known).unwrap_err().contains("line 1"));
        assert!(parse("a b=c", &known).is_err());
    }
}
