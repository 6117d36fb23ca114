//! Whatever the text, the answer is a definition or an error.

use proptest::prelude::*;

use crate::{load, select};

/// Texts that look like definitions more often than chance has it.
fn text() -> impl Strategy<Value = String> {
    let words = prop::sample::select(vec![
        "target",
        "group",
        "variable",
        "function",
        "\"a\"",
        "\"b\"",
        " {",
        "}",
        "\n",
        " = ",
        "[",
        "]",
        "(",
        ")",
        ",",
        "\"",
        "${",
        "%{ if ",
        "%{ for x in ",
        "%{ endif }",
        "%{ endfor }",
        "}",
        "~",
        "<<-E\n",
        "\nE\n",
        "tags",
        "args",
        "inherits",
        "matrix",
        "name",
        "default",
        "type",
        "params",
        "result",
        "validation",
        "condition",
        "list(",
        "map(",
        "object({",
        "string",
        "number",
        "1",
        "2.5",
        "-",
        "!",
        "+",
        "*",
        "/",
        "?",
        ":",
        "==",
        "&&",
        "||",
        "for x in ",
        "for k, v in ",
        "=>",
        "...",
        ".*.",
        "[*]",
        ".",
        "target.a.tags",
        "format(",
        "regex(",
        "range(",
        "join(",
        "try(",
        "null",
        "true",
        "#",
        "//",
        "/*",
        "*/",
        "services:",
        "  a:",
        " build: ",
        "- x",
        "&x ",
        "*x",
        "<<: ",
        "é",
        "\u{0}",
        "\\",
        "'",
        "{\"target\": ",
    ]);
    prop::collection::vec(words, 0..40).prop_map(|words| words.concat())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_text_breaks_the_reader(text in text(), name in prop::sample::select(vec!["f.hcl", "f.json", "f.yaml", "-"])) {
        if let Ok(definition) = load(name, &text) {
            let _ = select(&definition, &["*"], &["*.tags+=x"]).map(|selection| selection.json());
        }
    }

    #[test]
    fn no_bytes_break_the_reader(text in "\\PC*", name in prop::sample::select(vec!["f.hcl", "f.json", "f.yaml", "-"])) {
        let _ = load(name, &text);
    }

    #[test]
    fn no_expression_breaks_the_evaluation(text in text()) {
        let _ = load("f.hcl", &format!("target \"a\" {{\n  args = {{ X = {text} }}\n}}\n"));
        let quoted = format!("{text:?}");
        let _ = load("f.json", &format!("{{\"target\": {{\"a\": {{\"tags\": [{quoted}]}}}}}}"));
    }

    #[test]
    fn what_is_printed_can_be_read_again(tags in prop::collection::vec("[a-z]{1,8}", 0..4), value in "[ -~]{0,20}") {
        let mut json = String::from("target \"a\" {\n  tags = [");
        for tag in &tags {
            json.push_str(&format!("\"{tag}\", "));
        }
        let escaped = value.replace('\\', "\\\\").replace('"', "\\\"").replace("${", "$${").replace("%{", "%%{");
        json.push_str(&format!("]\n  args = {{ V = \"{escaped}\" }}\n}}\n"));
        let first = select(&load("f.hcl", &json).unwrap(), &["a"], &[]).unwrap();
        let again = select(&load("f.json", &first.json()).unwrap(), &["a"], &[]).unwrap();
        prop_assert_eq!(first.json(), again.json());
        prop_assert_eq!(first.targets["a"].args.as_ref().unwrap()["V"].as_deref(), Some(value.as_str()));
    }
}
