//! JSON text to the structure of a definition, after HCL's JSON syntax: objects are blocks where blocks belong, strings are
//! templates, and the key "//" is a comment. Our own reader, because places are needed and keys may be repeated.

use super::{Attribute, Block, Body, Expr, Key, Kind, hcl};
use crate::error::{Outcome, Problem};
use crate::source::Span;
use crate::value::{Number, Value};

const DEEPEST: usize = 64;
/// The blocks of a definition, by the number of their labels.
const BLOCKS: [(&str, usize); 4] = [("variable", 1), ("group", 1), ("target", 1), ("function", 1)];
/// Blocks inside blocks.
const INNER: &str = "validation";

/// A whole file.
pub(crate) fn body(text: &str, file: usize) -> Outcome<Body> {
    let mut reader = Reader { text, file, at: 0 };
    let root = reader.value(0)?;
    reader.space();
    if reader.at < text.len() {
        return Err(reader.problem(
            "Extraneous data after value",
            "Extra characters appear after the JSON value.",
        ));
    }
    let mut body = Body::default();
    for (key, value) in objects(root)? {
        match BLOCKS.iter().find(|(kind, _)| *kind == key.text) {
            Some((kind, labels)) => blocks(kind, *labels, &[], key.span, value, &mut body)?,
            None => attribute(key, value, &mut body)?,
        }
    }
    Ok(body)
}

struct Node {
    kind: NodeKind,
    span: Span,
}

enum NodeKind {
    Literal(Value),
    Text(String),
    Array(Vec<Node>),
    Object(Vec<(Name, Node)>),
}

struct Name {
    text: String,
    span: Span,
}

/// The entries of an object, or of all objects of an array.
fn objects(node: Node) -> Outcome<Vec<(Name, Node)>> {
    match node.kind {
        NodeKind::Object(entries) => Ok(entries.into_iter().filter(|(key, _)| key.text != "//").collect()),
        NodeKind::Array(nodes) => {
            let mut all = Vec::new();
            for node in nodes {
                all.extend(objects(node)?);
            }
            Ok(all)
        }
        _ => Err(Problem::new(
            "Incorrect JSON value type",
            "A JSON object is required, to define arguments and child blocks.",
            node.span,
        )),
    }
}

fn blocks(
    kind: &str,
    missing: usize,
    labels: &[(String, Span)],
    span: Span,
    node: Node,
    body: &mut Body,
) -> Outcome<()> {
    if missing > 0 {
        for (key, value) in objects(node)? {
            let mut labels = labels.to_vec();
            let span = key.span;
            labels.push((key.text, key.span));
            blocks(kind, missing - 1, &labels, span, value, body)?;
        }
        return Ok(());
    }
    let nodes = match node.kind {
        NodeKind::Array(nodes) => nodes,
        // Null is no block.
        NodeKind::Literal(Value::Null) => return Ok(()),
        _ => vec![node],
    };
    for node in nodes {
        let mut inner = Body::default();
        for (key, value) in objects(node)? {
            if kind == "variable" && key.text == INNER {
                blocks(INNER, 0, &[], key.span, value, &mut inner)?;
            } else {
                attribute(key, value, &mut inner)?;
            }
        }
        body.blocks.push(Block {
            kind: kind.to_owned(),
            labels: labels.to_vec(),
            span,
            body: inner,
        });
    }
    Ok(())
}

fn attribute(key: Name, node: Node, body: &mut Body) -> Outcome<()> {
    if body.attribute(&key.text).is_some() {
        return Err(Problem::new(
            "Duplicate argument",
            format!("The argument \"{}\" was already set.", key.text),
            key.span,
        ));
    }
    body.attributes.push(Attribute {
        span: key.span.to(node.span),
        name: key.text,
        expr: expr(node)?,
    });
    Ok(())
}

fn expr(node: Node) -> Outcome<Expr> {
    let kind = match node.kind {
        NodeKind::Literal(value) => Kind::Literal(value),
        NodeKind::Text(text) => return hcl::template(&text, node.span),
        NodeKind::Array(nodes) => Kind::Tuple(nodes.into_iter().map(expr).collect::<Outcome<_>>()?),
        NodeKind::Object(entries) => Kind::Object(
            entries
                .into_iter()
                .map(|(key, value)| Ok((Key::Expr(hcl::template(&key.text, key.span)?), expr(value)?)))
                .collect::<Outcome<_>>()?,
        ),
    };
    Ok(Expr {
        kind,
        span: node.span,
    })
}

struct Reader<'a> {
    text: &'a str,
    file: usize,
    at: usize,
}

impl Reader<'_> {
    fn space(&mut self) {
        let rest = &self.text[self.at..];
        self.at += rest.len() - rest.trim_start_matches([' ', '\t', '\r', '\n']).len();
    }

    fn peek(&self) -> Option<char> {
        self.text[self.at..].chars().next()
    }

    fn here(&self) -> Span {
        let width = self.peek().map_or(0, char::len_utf8);
        Span::new(self.file, self.at..self.at + width)
    }

    fn problem(&self, summary: &str, detail: &str) -> Box<Problem> {
        Problem::new(summary, detail, self.here())
    }

    fn eat(&mut self, wanted: char) -> bool {
        let found = self.peek() == Some(wanted);
        if found {
            self.at += wanted.len_utf8();
        }
        found
    }

    fn value(&mut self, depth: usize) -> Outcome<Node> {
        if depth > DEEPEST {
            return Err(self.problem(
                "Nesting too deep",
                &format!("Arrays and objects may be nested {DEEPEST} levels deep."),
            ));
        }
        self.space();
        let start = self.at;
        let kind = match self.peek() {
            Some('{') => self.object(depth)?,
            Some('[') => self.array(depth)?,
            Some('"') => NodeKind::Text(self.string()?),
            Some('-' | '0'..='9') => self.number()?,
            Some(c) if c.is_ascii_alphabetic() => self.word()?,
            None => {
                return Err(self.problem(
                    "Missing JSON data",
                    "The JSON data ends where a value is expected.",
                ));
            }
            Some(_) => {
                return Err(self.problem(
                    "Invalid start of value",
                    "Expected the start of a JSON value here.",
                ));
            }
        };
        Ok(Node {
            kind,
            span: Span::new(self.file, start..self.at),
        })
    }

    fn object(&mut self, depth: usize) -> Outcome<NodeKind> {
        self.eat('{');
        let mut entries = Vec::new();
        loop {
            self.space();
            if self.eat('}') {
                return Ok(NodeKind::Object(entries));
            }
            let start = self.at;
            if self.peek() != Some('"') {
                return Err(self.problem(
                    "Invalid object property",
                    "A JSON object property must start with a quoted name.",
                ));
            }
            let text = self.string()?;
            let span = Span::new(self.file, start..self.at);
            self.space();
            if !self.eat(':') {
                return Err(self.problem(
                    "Missing object value",
                    "A colon and a value must follow the property name.",
                ));
            }
            let value = self.value(depth + 1)?;
            entries.push((Name { text, span }, value));
            self.space();
            if !self.eat(',') && self.peek() != Some('}') {
                return Err(self.problem(
                    "Missing attribute separator",
                    "A comma must separate properties, and a closing brace must end the object.",
                ));
            }
        }
    }

    fn array(&mut self, depth: usize) -> Outcome<NodeKind> {
        self.eat('[');
        let mut elements = Vec::new();
        loop {
            self.space();
            if self.eat(']') {
                return Ok(NodeKind::Array(elements));
            }
            elements.push(self.value(depth + 1)?);
            self.space();
            if !self.eat(',') && self.peek() != Some(']') {
                return Err(self.problem(
                    "Missing element separator",
                    "A comma must separate elements, and a closing bracket must end the array.",
                ));
            }
        }
    }

    fn string(&mut self) -> Outcome<String> {
        let bytes = self.text.as_bytes();
        let start = self.at;
        let mut end = start + 1;
        while let Some(byte) = bytes.get(end) {
            match byte {
                b'"' => {
                    let quoted = &self.text[start..=end];
                    self.at = end + 1;
                    return serde_json::from_str(quoted).map_err(|error| {
                        Problem::new(
                            "Invalid JSON string",
                            format!("{error}."),
                            Span::new(self.file, start..end + 1),
                        )
                    });
                }
                b'\\' => end += 2,
                b'\n' => break,
                _ => end += 1,
            }
        }
        Err(Problem::new(
            "Invalid JSON string",
            "The string is not closed on its line.",
            Span::new(self.file, start..start + 1),
        ))
    }

    fn number(&mut self) -> Outcome<NodeKind> {
        let start = self.at;
        let rest = &self.text[start..];
        let length = rest
            .find(|c: char| !matches!(c, '0'..='9' | '-' | '+' | '.' | 'e' | 'E'))
            .unwrap_or(rest.len());
        let span = Span::new(self.file, start..start + length);
        let text = &rest[..length];
        self.at += length;
        let is_json = serde_json::from_str::<serde_json::Number>(text).is_ok();
        match Number::parse(text) {
            Some(number) if is_json => Ok(NodeKind::Literal(Value::Number(number))),
            _ => Err(Problem::new(
                "Invalid JSON number",
                "There is a syntax error in the given JSON number.",
                span,
            )),
        }
    }

    fn word(&mut self) -> Outcome<NodeKind> {
        let start = self.at;
        let rest = &self.text[start..];
        let length = rest.find(|c: char| !c.is_alphanumeric()).unwrap_or(rest.len());
        self.at += length;
        let value = match &rest[..length] {
            "true" => Value::Bool(true),
            "false" => Value::Bool(false),
            "null" => Value::Null,
            other => {
                return Err(Problem::new(
                    "Invalid JSON keyword",
                    format!("\"{other}\" is not a valid JSON keyword."),
                    Span::new(self.file, start..start + length),
                ));
            }
        };
        Ok(NodeKind::Literal(value))
    }
}
