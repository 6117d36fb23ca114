//! JSON text as Go's encoder lays it out: two blanks a level, keys in the order given.

use crate::value::json::quote;

#[derive(Clone, Debug)]
pub(crate) enum Node {
    Null,
    Flag(bool),
    /// Digits as they are.
    Number(String),
    Text(String),
    List(Vec<Self>),
    Object(Vec<(String, Self)>),
}

impl Node {
    pub fn text(text: impl Into<String>) -> Self {
        Self::Text(text.into())
    }
}

impl std::fmt::Display for Node {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut out = String::new();
        write(self, 0, &mut out);
        f.write_str(&out)
    }
}

fn write(node: &Node, level: usize, out: &mut String) {
    match node {
        Node::Null => out.push_str("null"),
        Node::Flag(flag) => out.push_str(if *flag { "true" } else { "false" }),
        Node::Number(digits) => out.push_str(digits),
        Node::Text(text) => quote(text, out),
        Node::List(nodes) if nodes.is_empty() => out.push_str("[]"),
        Node::Object(fields) if fields.is_empty() => out.push_str("{}"),
        Node::List(nodes) => {
            out.push('[');
            for (at, node) in nodes.iter().enumerate() {
                line(at, level + 1, out);
                write(node, level + 1, out);
            }
            end(level, out);
            out.push(']');
        }
        Node::Object(fields) => {
            out.push('{');
            for (at, (name, node)) in fields.iter().enumerate() {
                line(at, level + 1, out);
                quote(name, out);
                out.push_str(": ");
                write(node, level + 1, out);
            }
            end(level, out);
            out.push('}');
        }
    }
}

fn line(at: usize, level: usize, out: &mut String) {
    if at > 0 {
        out.push(',');
    }
    end(level, out);
}

fn end(level: usize, out: &mut String) {
    out.push('\n');
    out.extend(std::iter::repeat_n("  ", level));
}
