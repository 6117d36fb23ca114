//! A definition by somebody else cannot take all memory, all time or all of the stack.

use std::fmt::Write as _;

use crate::load;

fn fails_with(text: &str, expected: &str) {
    let shown = load("f.hcl", text).unwrap_err().to_string();
    assert!(shown.contains(expected), "{shown}");
}

#[test]
fn values_cannot_grow_without_end() {
    let mut text = String::from("variable \"V0\" { default = \"xxxxxxxx\" }\n");
    for number in 1..64 {
        let before = number - 1;
        writeln!(
            text,
            "variable \"V{number}\" {{ default = \"${{V{before}}}${{V{before}}}\" }}"
        )
        .unwrap();
    }
    fails_with(&text, "Evaluation limit reached");
    let lists = text
        .replace("\"${V", "[V")
        .replace("}${V", ", V")
        .replace("}\" }", "] }");
    fails_with(&lists, "Evaluation limit reached");
}

#[test]
fn matrices_cannot_multiply_without_end() {
    let axis = "a = range(1000)\nb = range(1000)\nc = range(1000)";
    fails_with(
        &format!("target \"t\" {{\n name = \"${{a}}-${{b}}-${{c}}\"\n matrix = {{\n{axis}\n}}\n}}"),
        "Evaluation limit reached",
    );
    fails_with(
        "variable \"V\" { default = setproduct(range(1000), range(1000), range(1000)) }",
        "combinations",
    );
}

#[test]
fn chains_have_an_end() {
    let mut text = String::from("variable \"V0\" { default = 1 }\n");
    for number in 1..3000 {
        writeln!(text, "variable \"V{number}\" {{ default = V{} + 1 }}", number - 1).unwrap();
    }
    // In order, each is there when it is needed; asked for from the end, it is a long way down.
    assert!(load("f.hcl", &text).is_ok());
    let reversed: String = text.lines().rev().map(|line| format!("{line}\n")).collect();
    fails_with(&reversed, "levels deep");
}

#[test]
fn nesting_has_an_end() {
    for (open, close) in [
        ("(", ")"),
        ("[", "]"),
        ("{a=", "}"),
        ("!", ""),
        ("-", ""),
        ("\"${", "}\""),
    ] {
        for depth in [60, 100_000] {
            let text = format!("x = {}1{}", open.repeat(depth), close.repeat(depth));
            let outcome = load("f.hcl", &text);
            assert!(depth == 60 || outcome.is_err(), "{open} {depth}");
        }
    }
    let conditionals = format!("x = {}1", "true ? 1 : ".repeat(50_000));
    assert!(load("f.hcl", &conditionals).is_err());
    assert!(load("f.json", &"[".repeat(100_000)).is_err());
    assert!(load("f.yaml", &"[".repeat(100_000)).is_err());
    assert!(load("f.yaml", &"a: {".repeat(10_000)).is_err());
}

#[test]
fn aliases_of_yaml_cannot_multiply_without_end() {
    let mut text = String::from("x0: &x0 [lol, lol]\n");
    for number in 1..40 {
        let before = number - 1;
        writeln!(text, "x{number}: &x{number} [*x{before}, *x{before}, *x{before}]").unwrap();
    }
    text.push_str("services: { a: { build: . } }\n");
    assert!(load("f.yaml", &text).is_err());
}
