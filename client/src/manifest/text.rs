//! JSON text laid out as Go's encoder does, without reading it into values: numbers and escapes stay as they are.

/// Without the white space between tokens.
pub fn compact(json: &str) -> String {
    let mut out = String::with_capacity(json.len());
    for token in Tokens::of(json) {
        out.push_str(token);
    }
    out
}

/// One token of a list or object per line, each level one `unit` deeper. Empty lists and objects stay together.
pub fn indent(json: &str, unit: &str) -> String {
    let mut out = String::with_capacity(json.len() * 2);
    let mut depth: usize = 0;
    let mut opened = false;
    for token in Tokens::of(json) {
        let closes = matches!(token, "}" | "]");
        if opened && !closes {
            depth += 1;
            new_line(&mut out, depth, unit);
        }
        match token {
            "{" | "[" => out.push_str(token),
            "," => {
                out.push_str(token);
                new_line(&mut out, depth, unit);
            }
            ":" => out.push_str(": "),
            "}" | "]" => {
                if !opened {
                    depth = depth.saturating_sub(1);
                    new_line(&mut out, depth, unit);
                }
                out.push_str(token);
            }
            value => out.push_str(value),
        }
        opened = matches!(token, "{" | "[");
    }
    out
}

fn new_line(out: &mut String, depth: usize, unit: &str) {
    out.push('\n');
    for _ in 0..depth {
        out.push_str(unit);
    }
}

/// Splits valid JSON at its tokens. What is not valid comes out in some pieces, all of it.
struct Tokens<'a> {
    rest: &'a str,
}

impl<'a> Tokens<'a> {
    fn of(json: &'a str) -> Self {
        Self { rest: json }
    }
}

const SPACE: [char; 4] = [' ', '\t', '\r', '\n'];

impl<'a> Iterator for Tokens<'a> {
    type Item = &'a str;

    fn next(&mut self) -> Option<&'a str> {
        self.rest = self.rest.trim_start_matches(SPACE);
        let end = match self.rest.chars().next()? {
            '{' | '}' | '[' | ']' | ',' | ':' => 1,
            '"' => end_of_string(self.rest),
            _ => self
                .rest
                .find(['{', '}', '[', ']', ',', ':', '"', ' ', '\t', '\r', '\n'])
                .unwrap_or(self.rest.len()),
        };
        let (token, rest) = self.rest.split_at(end);
        self.rest = rest;
        Some(token)
    }
}

/// Behind the closing quote of the string that `text` begins with.
fn end_of_string(text: &str) -> usize {
    let mut escaped = false;
    for (at, character) in text.char_indices().skip(1) {
        match character {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return at + 1,
            _ => {}
        }
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layout_changes_and_nothing_else() {
        let text = "\n{ \"a\" : [ ] , \"b\":{},\"c\\\"}\" :[1e3, -0.50,\"\\u003c, é\",{\"d\":null}]\t}\n";
        assert_eq!(
            compact(text),
            "{\"a\":[],\"b\":{},\"c\\\"}\":[1e3,-0.50,\"\\u003c, é\",{\"d\":null}]}"
        );
        let expected = "{\n  \"a\": [],\n  \"b\": {},\n  \"c\\\"}\": [\n    1e3,\n    -0.50,\n    \"\\u003c, é\",\n    {\n      \"d\": null\n    }\n  ]\n}";
        assert_eq!(indent(text, "  "), expected);
        assert_eq!(indent(&compact(text), "  "), expected);
    }

    #[test]
    fn text_that_is_no_json_ends_too() {
        for text in ["", "\"", "\"\\", "}}]", "{,:", "tru\"e"] {
            indent(text, "\t");
            compact(text);
        }
    }
}
