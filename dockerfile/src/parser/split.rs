//! Taking the text of one instruction apart: keyword, flags, words, `name=value` pairs, JSON lists.

use super::Problem;

/// Blanks between words. Not all Unicode white space: a no-break space is part of a word.
const BLANKS: [char; 5] = ['\t', '\u{b}', '\u{c}', '\r', ' '];

/// Keyword, flags, and the rest, trimmed.
pub(crate) fn instruction(code: &str, escape: char) -> (&str, Vec<String>, &str) {
    let code = code.trim();
    let Some((keyword, rest)) = code.split_once(BLANKS) else {
        return (code, Vec::new(), "");
    };
    let (flags, rest) = flags(rest.trim_start_matches(BLANKS), escape);
    (keyword, flags, rest.trim())
}

/// Leading words that start with `--`, unquoted; a lone `--` ends them and vanishes.
fn flags(text: &str, escape: char) -> (Vec<String>, &str) {
    let mut found = Vec::new();
    let mut rest = text.trim_start();
    while rest.starts_with("--") {
        let (word, after) = flag(rest, escape);
        rest = after.trim_start();
        if word == "--" {
            break;
        }
        found.push(word);
    }
    (found, rest)
}

fn flag(text: &str, escape: char) -> (String, &str) {
    let mut word = String::new();
    let mut quote = None;
    let mut chars = text.char_indices();
    while let Some((at, ch)) = chars.next() {
        match quote {
            None if ch.is_whitespace() => return (word, &text[at..]),
            None if ch == '\'' || ch == '"' => quote = Some(ch),
            Some(open) if ch == open => quote = None,
            _ if ch == escape => word.extend(chars.next().map(|(_, escaped)| escaped)),
            _ => word.push(ch),
        }
    }
    (word, "")
}

/// Words at blanks, quotes mean nothing.
pub(crate) fn blanks(text: &str) -> Vec<String> {
    text.split(BLANKS)
        .filter(|word| !word.is_empty())
        .map(str::to_owned)
        .collect()
}

/// Words at blanks that are not quoted or escaped. Quotes and escapes stay: they are taken off by expansion.
pub(crate) fn words(text: &str, escape: char) -> Vec<String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    let mut chars = text.chars().peekable();
    while let Some(ch) = chars.next() {
        if quote.is_none() && ch.is_whitespace() {
            words.extend(word.take());
            continue;
        }
        match quote {
            None if ch == '\'' || ch == '"' => quote = Some(ch),
            Some(open) if ch == open => quote = None,
            _ => {}
        }
        if ch == escape && quote != Some('\'') {
            // An escape at the very end escapes nothing and is dropped.
            if let Some(escaped) = chars.next() {
                word.get_or_insert_default().extend([ch, escaped]);
            }
            continue;
        }
        word.get_or_insert_default().push(ch);
    }
    words.extend(word);
    words
}

/// A pair of ENV or LABEL. `old_form` is `ENV name value`, without the `=`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pair {
    pub name: String,
    pub value: String,
    pub old_form: bool,
}

/// `name=value …`, or in the old form `name all the rest`. The first word decides which it is.
pub(crate) fn pairs(text: &str, escape: char, instruction: &'static str) -> Result<Vec<Pair>, Problem> {
    let words = words(text, escape);
    let Some(first) = words.first() else {
        return Err(Problem::AtLeastOneArgument(instruction));
    };
    if !first.contains('=') {
        let (name, value) = text
            .split_once(BLANKS)
            .ok_or(Problem::KeyWithoutValue(instruction))?;
        let value = value.trim_start_matches(BLANKS).to_owned();
        return Ok(vec![Pair {
            name: name.to_owned(),
            value,
            old_form: true,
        }]);
    }
    words
        .into_iter()
        .map(|word| match word.split_once('=') {
            None => Err(Problem::NoEqualSign(word)),
            Some(("", _)) => Err(Problem::BlankName(instruction)),
            Some((name, value)) => Ok(Pair {
                name: name.to_owned(),
                value: value.to_owned(),
                old_form: false,
            }),
        })
        .collect()
}

/// The strings of a JSON list, or `None` if the text is no JSON list and so means itself.
pub(crate) fn json_list(text: &str) -> Result<Option<Vec<String>>, Problem> {
    if !text.trim_start().starts_with('[') {
        return Ok(None);
    }
    let Ok(values) = serde_json::from_str::<Vec<serde_json::Value>>(text) else {
        return Ok(None);
    };
    let strings = values.into_iter().map(|value| match value {
        serde_json::Value::String(text) => Ok(text),
        _ => Err(Problem::NotStrings),
    });
    strings.collect::<Result<_, _>>().map(Some)
}
