//! Walks a parsed template over a value, by the rules of Go's text/template.

use gotmpl::parse::{BranchNode, CommandNode, Expr, ListNode, Node, Number, PipeNode, SmolStr, TemplateNode};

use super::data::{Data, Nil};
use super::functions::{self, Mode};
use super::printing;
use super::template::{FormatError, Template, place};

/// Templates that call themselves end here.
const DEEPEST: usize = 100;
/// Rounds of all loops of one template together.
const MOST_ROUNDS: usize = 10_000_000;

pub fn run(template: &Template, data: &Data, mode: Mode) -> Result<String, FormatError> {
    let mut run = Run {
        template,
        mode,
        text: String::new(),
        variables: vec![("$".into(), data.clone())],
        depth: 0,
        rounds: 0,
    };
    match run.list(&template.tree, data) {
        Ok(()) | Err(Stop::Break | Stop::Continue) => Ok(run.text),
        Err(Stop::Failed(error)) => Err(*error),
    }
}

/// What ends the walk through a list of nodes early.
enum Stop {
    Break,
    Continue,
    Failed(Box<FormatError>),
}

struct Run<'t> {
    template: &'t Template,
    mode: Mode,
    text: String,
    variables: Vec<(SmolStr, Data)>,
    depth: usize,
    rounds: usize,
}

impl Run<'_> {
    fn wrong(&self, offset: usize, at: String, message: impl Into<String>) -> Stop {
        let (line, column) = place(&self.template.source, offset);
        Stop::Failed(Box::new(FormatError::Execute {
            line,
            column,
            at,
            message: message.into(),
        }))
    }

    fn wrong_at(&self, expression: &Expr, message: impl Into<String>) -> Stop {
        self.wrong(expression.pos().offset, shown(expression), message)
    }

    fn list(&mut self, list: &ListNode, dot: &Data) -> Result<(), Stop> {
        list.nodes.iter().try_for_each(|node| self.node(node, dot))
    }

    fn node(&mut self, node: &Node, dot: &Data) -> Result<(), Stop> {
        match node {
            Node::Text(text) => self.text.push_str(&text.text),
            Node::Action(action) => {
                let value = self.pipe(&action.pipe, dot)?;
                if action.pipe.decl.is_empty() {
                    self.text.push_str(&printing::printed(&value));
                }
            }
            Node::If(branch) => self.branch(branch, dot, false)?,
            Node::With(branch) => self.branch(branch, dot, true)?,
            Node::Range(branch) => self.range(branch, dot)?,
            Node::Template(call) => self.call_template(call, dot)?,
            Node::List(list) => self.list(list, dot)?,
            Node::Define(_) => {}
            Node::Break(_) => return Err(Stop::Break),
            Node::Continue(_) => return Err(Stop::Continue),
        }
        Ok(())
    }

    fn branch(&mut self, branch: &BranchNode, dot: &Data, moves_dot: bool) -> Result<(), Stop> {
        let outside = self.variables.len();
        let value = self.pipe(&branch.pipe, dot)?;
        if value.is_true() {
            self.list(&branch.body, if moves_dot { &value } else { dot })?;
        } else if let Some(body) = &branch.else_body {
            self.list(body, dot)?;
        }
        self.variables.truncate(outside);
        Ok(())
    }

    fn range(&mut self, branch: &BranchNode, dot: &Data) -> Result<(), Stop> {
        let outside = self.variables.len();
        let value = self.commands(&branch.pipe, dot)?;
        let result = match &value {
            Data::List(items) if !items.is_empty() => {
                let rounds = (0_i64..).map(Data::Int).zip(items.iter().cloned());
                self.rounds(branch, rounds)
            }
            Data::Map(map) if !map.entries.is_empty() => {
                let rounds = map
                    .entries
                    .iter()
                    .map(|(key, value)| (Data::from(key), value.clone()));
                self.rounds(branch, rounds)
            }
            Data::Int(count) if *count > 0 => self.rounds(
                branch,
                (0..*count).map(|round| (Data::Int(round), Data::Int(round))),
            ),
            Data::List(_) | Data::Map(_) | Data::Nil(_) | Data::Int(_) => match &branch.else_body {
                Some(body) => self.list(body, dot),
                None => Ok(()),
            },
            other => {
                let message = format!("range can't iterate over {}", printing::plain(other));
                Err(self.wrong(branch.pipe.pos.offset, shown_pipe(&branch.pipe), message))
            }
        };
        self.variables.truncate(outside);
        result
    }

    fn rounds(
        &mut self,
        branch: &BranchNode,
        rounds: impl Iterator<Item = (Data, Data)>,
    ) -> Result<(), Stop> {
        let outside = self.variables.len();
        for (key, value) in rounds {
            self.rounds += 1;
            if self.rounds > MOST_ROUNDS {
                let at = shown_pipe(&branch.pipe);
                return Err(self.wrong(branch.pipe.pos.offset, at, "the loop has too many rounds"));
            }
            let values: &[&Data] = match branch.pipe.decl.len() {
                1 => &[&value],
                _ => &[&key, &value],
            };
            for (name, value) in branch.pipe.decl.iter().zip(values) {
                self.bind(name, (*value).clone(), branch.pipe.is_assign);
            }
            let result = self.list(&branch.body, &value);
            self.variables.truncate(outside);
            match result {
                Ok(()) | Err(Stop::Continue) => {}
                Err(Stop::Break) => break,
                failed @ Err(Stop::Failed(_)) => return failed,
            }
        }
        Ok(())
    }

    fn call_template(&mut self, call: &TemplateNode, dot: &Data) -> Result<(), Stop> {
        let value = match &call.pipe {
            Some(pipe) => self.pipe(pipe, dot)?,
            None => Data::Nil(Nil::Any),
        };
        let template = self.template;
        let Some(body) = template.defines.get(&call.name) else {
            let at = format!("{{{{template {:?}}}}}", call.name.as_str());
            return Err(self.wrong(call.pos.offset, at, "template not defined"));
        };
        if self.depth == DEEPEST {
            let at = format!("{{{{template {:?}}}}}", call.name.as_str());
            return Err(self.wrong(call.pos.offset, at, "exceeded maximum template depth"));
        }
        self.depth += 1;
        let outside = std::mem::replace(&mut self.variables, vec![("$".into(), value.clone())]);
        let result = self.list(body, &value);
        self.variables = outside;
        self.depth -= 1;
        result
    }

    /// The value of a pipeline, with its variables set.
    fn pipe(&mut self, pipe: &PipeNode, dot: &Data) -> Result<Data, Stop> {
        let value = self.commands(pipe, dot)?;
        for name in &pipe.decl {
            self.bind(name, value.clone(), pipe.is_assign);
        }
        Ok(value)
    }

    fn bind(&mut self, name: &SmolStr, value: Data, is_assign: bool) {
        let known = self
            .variables
            .iter_mut()
            .rev()
            .find(|(known, _)| is_assign && known == name);
        match known {
            Some((_, slot)) => *slot = value,
            None => self.variables.push((name.clone(), value)),
        }
    }

    fn commands(&mut self, pipe: &PipeNode, dot: &Data) -> Result<Data, Stop> {
        let mut value = None;
        for command in &pipe.commands {
            value = Some(self.command(command, dot, value)?);
        }
        Ok(value.unwrap_or(Data::Nil(Nil::Any)))
    }

    fn command(&mut self, command: &CommandNode, dot: &Data, piped: Option<Data>) -> Result<Data, Stop> {
        let Some((first, rest)) = command.args.split_first() else {
            return Ok(piped.unwrap_or(Data::Nil(Nil::Any)));
        };
        match first {
            Expr::Identifier(_, name) => self.call(first, name, rest, dot, piped),
            Expr::Chain(_, inner, names) if matches!(**inner, Expr::Identifier(..)) => {
                let Expr::Identifier(_, name) = &**inner else {
                    return self.value(first, dot);
                };
                let value = self.call(inner, name, rest, dot, piped)?;
                self.fields(first, value, names)
            }
            _ if piped.is_some() || !rest.is_empty() => Err(self.wrong_at(
                first,
                format!("can't give argument to non-function {}", shown(first)),
            )),
            Expr::Nil(_) => Err(self.wrong_at(first, "nil is not a command")),
            _ => self.value(first, dot),
        }
    }

    fn call(
        &mut self,
        at: &Expr,
        name: &SmolStr,
        arguments: &[Expr],
        dot: &Data,
        piped: Option<Data>,
    ) -> Result<Data, Stop> {
        // These two look at their arguments only until one decides.
        let decides = match name.as_str() {
            "and" => Some(false),
            "or" => Some(true),
            _ => None,
        };
        let mut values = Vec::with_capacity(arguments.len() + 1);
        for argument in arguments {
            let value = self.value(argument, dot)?;
            if decides == Some(value.is_true()) {
                return Ok(value);
            }
            values.push(value);
        }
        values.extend(piped);
        if decides.is_some() {
            return values.pop().ok_or_else(|| {
                self.wrong_at(
                    at,
                    format!("wrong number of args for {name}: want at least 1 got 0"),
                )
            });
        }
        functions::call(name, &values, self.mode, self.template.json)
            .map_err(|message| self.wrong_at(at, message))
    }

    fn value(&mut self, expression: &Expr, dot: &Data) -> Result<Data, Stop> {
        match expression {
            Expr::Dot(_) => Ok(dot.clone()),
            Expr::Field(_, names) => self.fields(expression, dot.clone(), names),
            Expr::Variable(_, name, names) => {
                let found = self.variables.iter().rev().find(|(known, _)| known == name);
                match found.map(|(_, value)| value.clone()) {
                    Some(value) => self.fields(expression, value, names),
                    None => Err(self.wrong_at(expression, format!("undefined variable: {name}"))),
                }
            }
            Expr::Identifier(_, name) => self.call(expression, name, &[], dot, None),
            Expr::String(_, text) => Ok(Data::Text(text.clone())),
            Expr::Number(_, Number::Int(number)) => Ok(Data::Int(*number)),
            Expr::Number(_, Number::Float(number)) => Ok(Data::Float(*number)),
            Expr::Number(_, Number::Uint(number)) => {
                Err(self.wrong_at(expression, format!("{number} overflows int")))
            }
            Expr::Bool(_, value) => Ok(Data::Flag(*value)),
            Expr::Nil(_) => Ok(Data::Nil(Nil::Any)),
            Expr::Pipe(_, pipe) => self.pipe(pipe, dot),
            Expr::Chain(_, inner, names) => {
                let value = self.value(inner, dot)?;
                self.fields(expression, value, names)
            }
        }
    }

    fn fields(&self, at: &Expr, value: Data, names: &[SmolStr]) -> Result<Data, Stop> {
        names
            .iter()
            .try_fold(value, |value, name| field_of(&value, name))
            .map_err(|message| self.wrong_at(at, message))
    }
}

fn field_of(value: &Data, name: &str) -> Result<Data, String> {
    match value {
        Data::Record(record) => {
            let found = record.fields.iter().find(|field| field.name == name);
            found
                .filter(|_| !name.is_empty())
                .map(|field| field.value.clone())
                .ok_or_else(|| format!("can't evaluate field {name} in type {}", record.type_name))
        }
        Data::Map(map) => Ok(map.entries.get(name).cloned().unwrap_or(Data::Nil(Nil::Any))),
        Data::Nil(Nil::Any | Nil::Map) => Ok(Data::Nil(Nil::Any)),
        Data::Nil(Nil::Pointer) => Err(format!("nil pointer evaluating {name}")),
        other => Err(format!(
            "can't evaluate field {name} in type {}",
            other.type_name()
        )),
    }
}

/// An expression as it was written, or nearly.
fn shown(expression: &Expr) -> String {
    let dotted = |names: &[SmolStr]| -> String { names.iter().map(|name| format!(".{name}")).collect() };
    match expression {
        Expr::Dot(_) => ".".to_owned(),
        Expr::Field(_, names) => dotted(names),
        Expr::Variable(_, name, names) => format!("{name}{}", dotted(names)),
        Expr::Identifier(_, name) => name.to_string(),
        Expr::String(_, text) => format!("{text:?}"),
        Expr::Number(_, Number::Int(number)) => number.to_string(),
        Expr::Number(_, Number::Uint(number)) => number.to_string(),
        Expr::Number(_, Number::Float(number)) => printing::float(*number),
        Expr::Bool(_, value) => value.to_string(),
        Expr::Nil(_) => "nil".to_owned(),
        Expr::Pipe(_, pipe) => format!("({})", shown_pipe(pipe)),
        Expr::Chain(_, inner, names) => format!("{}{}", shown(inner), dotted(names)),
    }
}

fn shown_pipe(pipe: &PipeNode) -> String {
    let commands: Vec<String> = pipe
        .commands
        .iter()
        .map(|command| command.args.iter().map(shown).collect::<Vec<_>>().join(" "))
        .collect();
    commands.join(" | ")
}
