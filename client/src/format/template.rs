//! Parsing: syntax, and all that can be known of a template before it meets a value.

use std::collections::{BTreeMap, BTreeSet};

use gotmpl::TemplateError;
use gotmpl::parse::{BranchNode, CommandNode, Expr, ListNode, Node, Parser, PipeNode, Pos, SmolStr};

use super::blocks;
use super::data::Data;
use super::engine;
use super::functions;
use super::json::Json;

#[derive(Debug, thiserror::Error)]
pub enum FormatError {
    #[error("template parsing error: template: :{line}:{column}: {message}")]
    Parse {
        line: usize,
        column: usize,
        message: String,
    },
    #[error("template: :{line}:{column}: executing \"\" at <{at}>: {message}")]
    Execute {
        line: usize,
        column: usize,
        at: String,
        message: String,
    },
}

/// A Go template, ready for values.
#[derive(Clone, Debug)]
pub struct Template {
    pub(super) source: String,
    pub(super) tree: ListNode,
    pub(super) defines: BTreeMap<SmolStr, ListNode>,
    pub(super) json: Json,
    uses: Uses,
}

/// Which parts of the value a template looks at.
#[derive(Clone, Debug, Default)]
struct Uses {
    fields: BTreeSet<SmolStr>,
    whole: bool,
}

impl Template {
    /// Parses a template whose function `json` writes in this style.
    pub fn parse(source: &str, json: Json) -> Result<Self, FormatError> {
        let parsed = Parser::new(source, "{{", "}}").and_then(Parser::parse);
        let (tree, definitions) = parsed.map_err(|error| syntax_error(&error))?;
        blocks::check(source).map_err(|wrong| {
            let (line, column) = place(source, wrong.offset);
            FormatError::Parse {
                line,
                column,
                message: wrong.message,
            }
        })?;
        let defines: BTreeMap<SmolStr, ListNode> = definitions
            .into_iter()
            .map(|define| (define.name, define.body))
            .collect();
        let mut check = Check {
            source,
            uses: Uses::default(),
            variables: vec!["$".into()],
            defines: &defines,
        };
        check.list(&tree)?;
        for body in defines.values() {
            check.variables.truncate(1);
            check.list(body)?;
        }
        let uses = check.uses;
        Ok(Self {
            source: source.to_owned(),
            tree,
            defines,
            json,
            uses,
        })
    }

    /// Whether the value's field of this name is looked at, by name. The value as a whole is another question.
    ///
    /// A field of the same name deeper in the value counts too.
    pub fn uses(&self, field: &str) -> bool {
        self.uses.fields.contains(field)
    }

    /// Whether something takes the dot or `$` as a whole, as `{{json .}}` does.
    pub fn uses_whole(&self) -> bool {
        self.uses.whole
    }

    /// What the template makes of a value, with nothing added.
    pub fn render(&self, data: &Data) -> Result<String, FormatError> {
        engine::run(self, data, functions::Mode::Values)
    }

    /// The heading of a table: `headings` has a text for each field, which most functions leave as it is.
    pub(super) fn render_heading(&self, headings: &Data) -> Result<String, FormatError> {
        engine::run(self, headings, functions::Mode::Headings)
    }
}

fn syntax_error(error: &TemplateError) -> FormatError {
    match error {
        TemplateError::Parse {
            line, col, message, ..
        }
        | TemplateError::Lex {
            line, col, message, ..
        } => FormatError::Parse {
            line: *line,
            column: *col,
            message: message.clone(),
        },
        other => FormatError::Parse {
            line: 1,
            column: 1,
            message: other.to_string(),
        },
    }
}

/// Line and column of a byte of the source, counted from one.
pub(super) fn place(source: &str, offset: usize) -> (usize, usize) {
    let before = source.get(..offset).unwrap_or(source);
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
    (line, column)
}

/// Looks for functions and variables that do not exist, and for what is used.
struct Check<'a> {
    source: &'a str,
    uses: Uses,
    variables: Vec<SmolStr>,
    defines: &'a BTreeMap<SmolStr, ListNode>,
}

impl Check<'_> {
    fn wrong(&self, pos: Pos, message: String) -> FormatError {
        let (line, column) = place(self.source, pos.offset);
        FormatError::Parse {
            line,
            column,
            message,
        }
    }

    fn list(&mut self, list: &ListNode) -> Result<(), FormatError> {
        list.nodes.iter().try_for_each(|node| self.node(node))
    }

    fn node(&mut self, node: &Node) -> Result<(), FormatError> {
        match node {
            Node::Action(action) => self.pipe(&action.pipe),
            Node::If(branch) | Node::With(branch) | Node::Range(branch) => self.branch(branch),
            Node::Template(call) => {
                if !self.defines.contains_key(&call.name) {
                    let message = format!("template {:?} not defined", call.name.as_str());
                    return Err(self.wrong(call.pos, message));
                }
                call.pipe.as_ref().map_or(Ok(()), |pipe| self.pipe(pipe))
            }
            Node::List(list) => self.list(list),
            Node::Text(_) | Node::Define(_) | Node::Break(_) | Node::Continue(_) => Ok(()),
        }
    }

    /// Variables live until the end of what declared them.
    fn branch(&mut self, branch: &BranchNode) -> Result<(), FormatError> {
        let outside = self.variables.len();
        self.pipe(&branch.pipe)?;
        let inside = self.variables.len();
        self.list(&branch.body)?;
        self.variables.truncate(inside);
        if let Some(body) = &branch.else_body {
            self.list(body)?;
        }
        self.variables.truncate(outside);
        Ok(())
    }

    fn pipe(&mut self, pipe: &PipeNode) -> Result<(), FormatError> {
        pipe.commands
            .iter()
            .try_for_each(|command| self.command(command))?;
        if pipe.is_assign {
            let unknown = pipe.decl.iter().find(|name| !self.variables.contains(name));
            return match unknown {
                Some(name) => Err(self.wrong(pipe.pos, format!("undefined variable {:?}", name.as_str()))),
                None => Ok(()),
            };
        }
        self.variables.extend(pipe.decl.iter().cloned());
        Ok(())
    }

    fn command(&mut self, command: &CommandNode) -> Result<(), FormatError> {
        command
            .args
            .iter()
            .try_for_each(|argument| self.expression(argument))
    }

    fn expression(&mut self, expression: &Expr) -> Result<(), FormatError> {
        match expression {
            Expr::Dot(_) => self.uses.whole = true,
            Expr::Field(_, names) => self.uses.fields.extend(names.first().cloned()),
            Expr::Variable(pos, name, names) => {
                if !self.variables.contains(name) {
                    return Err(self.wrong(*pos, format!("undefined variable {:?}", name.as_str())));
                }
                self.uses.fields.extend(names.first().cloned());
                self.uses.whole |= names.is_empty() && name.as_str() == "$";
            }
            Expr::Identifier(pos, name) => {
                if !functions::exists(name) {
                    return Err(self.wrong(*pos, format!("function {:?} not defined", name.as_str())));
                }
            }
            Expr::Pipe(_, pipe) => self.pipe(pipe)?,
            Expr::Chain(_, inner, names) => {
                self.uses.fields.extend(names.first().cloned());
                self.expression(inner)?;
            }
            Expr::String(..) | Expr::Number(..) | Expr::Bool(..) | Expr::Nil(_) => {}
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
