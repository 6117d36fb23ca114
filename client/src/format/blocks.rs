//! Whether every block of a template is closed and every `end` closes one, which the parser does not look at.

/// What is wrong, and at which byte.
#[derive(Debug, PartialEq, Eq)]
pub struct Unbalanced {
    pub offset: usize,
    pub message: String,
}

struct Block<'a> {
    keyword: &'a str,
    has_else: bool,
}

/// Looks at the first word of every action. What is wrong inside of actions is the parser's business.
pub fn check(source: &str) -> Result<(), Unbalanced> {
    let mut blocks: Vec<Block<'_>> = Vec::new();
    let mut at = 0;
    while let Some(open) = source[at..].find("{{").map(|found| at + found) {
        let inside = open + 2;
        let Some(close) = end_of_action(source, inside) else {
            return Ok(());
        };
        let action = &source[inside..close];
        let action = action
            .strip_prefix('-')
            .filter(|rest| rest.starts_with(char::is_whitespace))
            .unwrap_or(action);
        let mut words = action.split(|c: char| !c.is_alphanumeric() && c != '_');
        let trimmed = action.trim_start();
        let offset = close - trimmed.len();
        let wrong = |message: String| Err(Unbalanced { offset, message });
        let keyword = words.find(|word| !word.is_empty()).unwrap_or_default();
        at = close + 2;
        if !trimmed.starts_with(keyword) {
            continue;
        }
        match keyword {
            "if" | "range" | "with" | "define" | "block" => blocks.push(Block {
                keyword,
                has_else: false,
            }),
            "end" => match blocks.pop() {
                Some(_) => {}
                None => return wrong("unexpected {{end}}".to_owned()),
            },
            "else" => {
                let continues = words.any(|word| matches!(word, "if" | "with"));
                match blocks.last_mut() {
                    Some(block) if !block.has_else && matches!(block.keyword, "if" | "range" | "with") => {
                        block.has_else = !continues;
                    }
                    _ => return wrong("unexpected {{else}}".to_owned()),
                }
            }
            "break" | "continue" if !blocks.iter().any(|block| block.keyword == "range") => {
                return wrong(format!("{{{{{keyword}}}}} outside {{{{range}}}}"));
            }
            _ => {}
        }
    }
    match blocks.last() {
        Some(block) => Err(Unbalanced {
            offset: source.len(),
            message: format!("unexpected EOF: {{{{{}}}}} has no {{{{end}}}}", block.keyword),
        }),
        None => Ok(()),
    }
}

/// Where the `}}` of an action is that begins at `start`; quotes and comments may contain others.
fn end_of_action(source: &str, start: usize) -> Option<usize> {
    let rest = &source[start..];
    let body = rest.trim_start_matches(['-', ' ', '\t', '\r', '\n']);
    if body.starts_with("/*") {
        let from = start + rest.len() - body.len();
        let after = from + source[from..].find("*/")?;
        return source[after..].find("}}").map(|found| after + found);
    }
    let mut quote = None;
    let mut escaped = false;
    for (position, character) in rest.char_indices() {
        match quote {
            Some(open) => {
                if std::mem::take(&mut escaped) {
                    continue;
                }
                escaped = character == '\\' && open != '`';
                if character == open {
                    quote = None;
                }
            }
            None if matches!(character, '"' | '\'' | '`') => quote = Some(character),
            None if rest[position..].starts_with("}}") => return Some(start + position),
            None => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_closed_and_only_blocks_are() {
        for (source, expected) in [
            ("no template", None),
            ("{{if .A}}{{else if .B}}{{else}}{{end}}", None),
            (
                "{{- range .A -}}{{with .B}}{{break}}{{end}}{{else}}{{- end}}",
                None,
            ),
            (r#"{{define "a}}{{end}}"}}{{end}}{{print `}}{{if`}}"#, None),
            ("{{/* {{if}} */}}{{- /* {{end}} */ -}}", None),
            ("{{.if}}{{.Image.end}}{{$if := 1}}", None),
            ("{{if .A}}", Some((9, "unexpected EOF: {{if}} has no {{end}}"))),
            ("a{{end}}", Some((3, "unexpected {{end}}"))),
            ("{{ else }}", Some((3, "unexpected {{else}}"))),
            (
                "{{if .A}}{{else}}{{else}}{{end}}",
                Some((19, "unexpected {{else}}")),
            ),
            ("{{break}}", Some((2, "{{break}} outside {{range}}"))),
        ] {
            let found = check(source).err();
            let found = found.as_ref().map(|wrong| (wrong.offset, wrong.message.as_str()));
            assert_eq!(found, expected, "{source}");
        }
    }
}
