//! JSON as Go writes it: fields of structures in their order, keys of maps sorted, Go's escapes and numbers.

use super::data::{Data, Field, Nil};
use super::printing;

/// The two ways in which Docker's tools write JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Json {
    /// In one line; `<`, `>` and `&` as they are: what most `--format`s have.
    Compact,
    /// Indented by two spaces; `<`, `>` and `&` escaped: `imagetools inspect`.
    Indented,
}

/// Without a line break at the end.
pub fn to_json(data: &Data, style: Json) -> String {
    let mut writer = Writer {
        text: String::new(),
        style,
    };
    writer.value(data, 0);
    writer.text
}

struct Writer {
    text: String,
    style: Json,
}

impl Writer {
    fn value(&mut self, data: &Data, depth: usize) {
        match data {
            Data::Nil(Nil::Any | Nil::Pointer | Nil::List | Nil::Map) => self.text.push_str("null"),
            Data::Flag(value) => self.text.push_str(if *value { "true" } else { "false" }),
            Data::Int(number) => self.text.push_str(&number.to_string()),
            Data::Float(number) => self.text.push_str(&printing::json_float(*number)),
            Data::Text(text) | Data::Time(text) => self.string(text),
            Data::List(items) => self.all(depth, ['[', ']'], items.iter().map(|item| (None, item))),
            Data::Map(map) => {
                let entries = map.entries.iter().map(|(key, value)| (Some(key.as_str()), value));
                self.all(depth, ['{', '}'], entries);
            }
            Data::Record(record) => {
                let is_hidden =
                    |field: &&Field| field.key.is_empty() || field.omit_empty && field.value.is_empty();
                let shown = record.fields.iter().filter(|field| !is_hidden(field));
                self.all(
                    depth,
                    ['{', '}'],
                    shown.map(|field| (Some(field.key), &field.value)),
                );
            }
        }
    }

    fn all<'a>(
        &mut self,
        depth: usize,
        [open, close]: [char; 2],
        items: impl Iterator<Item = (Option<&'a str>, &'a Data)>,
    ) {
        self.text.push(open);
        let mut is_first = true;
        for (key, value) in items {
            if !std::mem::take(&mut is_first) {
                self.text.push(',');
            }
            self.new_line(depth + 1);
            if let Some(key) = key {
                self.string(key);
                self.text
                    .push_str(if self.style == Json::Indented { ": " } else { ":" });
            }
            self.value(value, depth + 1);
        }
        if !is_first {
            self.new_line(depth);
        }
        self.text.push(close);
    }

    fn new_line(&mut self, depth: usize) {
        if self.style == Json::Indented {
            self.text.push('\n');
            self.text.extend(std::iter::repeat_n("  ", depth));
        }
    }

    fn string(&mut self, value: &str) {
        self.text.push('"');
        for character in value.chars() {
            match character {
                '"' => self.text.push_str("\\\""),
                '\\' => self.text.push_str("\\\\"),
                '\n' => self.text.push_str("\\n"),
                '\r' => self.text.push_str("\\r"),
                '\t' => self.text.push_str("\\t"),
                '\u{8}' => self.text.push_str("\\b"),
                '\u{c}' => self.text.push_str("\\f"),
                '<' | '>' | '&' if self.style == Json::Indented => self.escape(character),
                '\u{2028}' | '\u{2029}' => self.escape(character),
                control if control < ' ' => self.escape(control),
                other => self.text.push(other),
            }
        }
        self.text.push('"');
    }

    fn escape(&mut self, character: char) {
        self.text.push_str(&format!("\\u{:04x}", u32::from(character)));
    }
}

#[cfg(test)]
mod tests {
    use super::super::data::{field, map, record};
    use super::*;

    #[test]
    fn structures_keep_their_order_and_leave_out_what_is_empty() {
        let data = record(
            "Thing",
            [
                field("Z", "z", "<a> & \"b\"\u{1}"),
                field("A", "a", 5_i64),
                field("Empty", "empty", "").omit_empty(),
                Field::template_only("Hidden", true),
                Field::json_only("shown", Data::list(["x"])),
                field("Map", "map", map([("b", 1_i64), ("a", 2)], Data::Int(0))),
                field("None", "none", Data::Nil(Nil::List)),
                field("Nothing", "nothing", Data::list::<&str>([])),
            ],
        );
        assert_eq!(
            to_json(&data, Json::Compact),
            r#"{"z":"<a> & \"b\"\u0001","a":5,"shown":["x"],"map":{"a":2,"b":1},"none":null,"nothing":[]}"#
        );
        assert_eq!(
            to_json(&data, Json::Indented),
            "{\n  \"z\": \"\\u003ca\\u003e \\u0026 \\\"b\\\"\\u0001\",\n  \"a\": 5,\n  \"shown\": [\n    \"x\"\n  ],\n  \"map\": {\n    \"a\": 2,\n    \"b\": 1\n  },\n  \"none\": null,\n  \"nothing\": []\n}"
        );
    }
}
