//! Source policies that are rules: which sources a build may use, and what it uses in their place.
//!
//! Rules are applied to definitions before they are loaded. A source that becomes another one gets another digest, and so
//! does every operation above it, so that one build may hold the same definition under several policies.

use std::borrow::Cow;
use std::collections::HashMap;
use std::path::{Component, Path};

use prost::Message;
use proto::pb;
use proto::sourcepolicy::{AttrConstraint, AttrMatch, MatchType, Policy, PolicyAction, Rule};
use regex::Regex;

use crate::graph::digest_of;

/// How often a source may be converted before the rules are taken for a circle.
const MOST_CONVERSIONS: usize = 20;

#[derive(Debug, thiserror::Error)]
pub enum RuleError {
    #[error("invalid nil selector in policy: a rule without a selector says nothing")]
    NoSelector,
    #[error("source policy: rule {identifier}: unknown type {action}: use ALLOW, DENY or CONVERT")]
    Action { identifier: String, action: i32 },
    #[error("source policy: rule {identifier}: unknown match type {kind}")]
    MatchType { identifier: String, kind: i32 },
    #[error("source policy: rule {identifier}: unknown condition {condition} for {key}")]
    Condition {
        identifier: String,
        key: String,
        condition: i32,
    },
    #[error("source policy: rule {0}: missing destination for convert rule")]
    NoDestination(String),
    #[error("source policy: invalid wildcard {0:?}: ** is not known")]
    Wildcard(String),
    #[error("source policy: invalid pattern {pattern:?}")]
    Pattern {
        pattern: String,
        #[source]
        source: Box<regex::Error>,
    },
    #[error("source {0:?} denied by policy: source denied by policy")]
    Denied(String),
    #[error("source policy: too many operations: {0:?} is converted again and again")]
    Circle(String),
}

/// The policies of a build or request, in the order in which they are asked.
#[derive(Debug, Default)]
pub struct Rules(Vec<Vec<Compiled>>);

/// A definition in which sources have become others.
#[derive(Debug)]
pub struct Rewritten {
    pub definition: pb::Definition,
    /// The digests of its operations by those that they had.
    pub renamed: HashMap<String, String>,
}

#[derive(Debug)]
struct Compiled {
    action: PolicyAction,
    identifier: String,
    kind: MatchType,
    /// Of a wildcard or pattern.
    pattern: Option<Regex>,
    constraints: Vec<Constraint>,
    /// What a converted source becomes.
    destination: String,
    attributes: Vec<(String, String)>,
}

#[derive(Debug)]
enum Constraint {
    Equal(String, String),
    NotEqual(String, String),
    Matches(String, Regex),
}

impl Rules {
    pub fn new<'a>(policies: impl IntoIterator<Item = &'a Policy>) -> Result<Self, RuleError> {
        let compile = |policy: &Policy| policy.rules.iter().map(Compiled::new).collect();
        policies
            .into_iter()
            .map(compile)
            .collect::<Result<_, _>>()
            .map(Self)
    }

    pub fn is_empty(&self) -> bool {
        self.0.iter().all(Vec::is_empty)
    }

    /// What is to be used for a source.
    pub fn apply<'a>(&self, source: &'a pb::SourceOp) -> Result<Cow<'a, pb::SourceOp>, RuleError> {
        if self.is_empty() {
            return Ok(Cow::Borrowed(source));
        }
        let mut source = Cow::Borrowed(source);
        let normal = normalized(&source.identifier);
        if normal != source.identifier {
            source.to_mut().identifier = normal;
        }
        for _ in 0..=MOST_CONVERSIONS {
            let mut converted = None;
            for policy in &self.0 {
                converted = decide(policy, &source)?;
                if converted.is_some() {
                    break;
                }
            }
            match converted {
                Some(converted) => source = Cow::Owned(converted),
                None => return Ok(source),
            }
        }
        Err(RuleError::Circle(source.identifier.clone()))
    }

    /// A definition with what the rules make of its sources; `None` if that is the same.
    pub fn rewrite(&self, definition: &pb::Definition) -> Result<Option<Rewritten>, RuleError> {
        if self.is_empty() {
            return Ok(None);
        }
        let mut renamed: HashMap<String, String> = HashMap::new();
        let mut operations = Vec::with_capacity(definition.def.len());
        for bytes in &definition.def {
            // What cannot be decoded is refused when it is loaded.
            let Ok(mut op) = pb::Op::decode(&bytes[..]) else {
                operations.push(bytes.clone());
                continue;
            };
            let mut changed = false;
            for input in &mut op.inputs {
                if let Some(digest) = renamed.get(&input.digest) {
                    input.digest.clone_from(digest);
                    changed = true;
                }
            }
            if let Some(pb::op::Op::Source(source)) = &mut op.op
                && let Cow::Owned(other) = self.apply(source)?
                && other != *source
            {
                *source = other;
                changed = true;
            }
            if changed {
                let other = op.encode_to_vec();
                renamed.insert(digest_of(bytes), digest_of(&other));
                operations.push(other.into());
            } else {
                operations.push(bytes.clone());
            }
        }
        if renamed.is_empty() {
            return Ok(None);
        }
        let name = |digest: String| renamed.get(&digest).cloned().unwrap_or(digest);
        let mut rewritten = definition.clone();
        rewritten.def = operations;
        rewritten.metadata = std::mem::take(&mut rewritten.metadata)
            .into_iter()
            .map(|(digest, metadata)| (name(digest), metadata))
            .collect();
        if let Some(source) = &mut rewritten.source {
            source.locations = std::mem::take(&mut source.locations)
                .into_iter()
                .map(|(digest, locations)| (name(digest), locations))
                .collect();
        }
        Ok(Some(Rewritten {
            definition: rewritten,
            renamed,
        }))
    }
}

/// What one policy makes of a source: another one, or the same. The last of its rules that matches allows or denies.
fn decide(policy: &[Compiled], source: &pb::SourceOp) -> Result<Option<pb::SourceOp>, RuleError> {
    let mut denied = false;
    for rule in policy {
        if !rule.matches(source) {
            continue;
        }
        match rule.action {
            PolicyAction::Allow => denied = false,
            PolicyAction::Deny => denied = true,
            PolicyAction::Convert => {
                let converted = rule.convert(source);
                if converted != *source {
                    return Ok(Some(converted));
                }
            }
        }
    }
    if denied {
        let shown = dockerfile::address::without_credentials(&source.identifier);
        return Err(RuleError::Denied(shown));
    }
    Ok(None)
}

impl Compiled {
    fn new(rule: &Rule) -> Result<Self, RuleError> {
        let selector = rule.selector.as_ref().ok_or(RuleError::NoSelector)?;
        let identifier = selector.identifier.clone();
        let action = PolicyAction::try_from(rule.action).map_err(|_| RuleError::Action {
            identifier: identifier.clone(),
            action: rule.action,
        })?;
        let kind = MatchType::try_from(selector.match_type).map_err(|_| RuleError::MatchType {
            identifier: identifier.clone(),
            kind: selector.match_type,
        })?;
        if action == PolicyAction::Convert && rule.updates.is_none() {
            return Err(RuleError::NoDestination(identifier));
        }
        let pattern = match kind {
            MatchType::Exact => None,
            MatchType::Regex => Some(compile(&identifier)?),
            MatchType::Wildcard if identifier.contains("**") => return Err(RuleError::Wildcard(identifier)),
            MatchType::Wildcard => {
                let pattern = regex::escape(&identifier).replace("\\*", "(.*)");
                Some(compile(&format!("^{pattern}$"))?)
            }
        };
        let constraints = selector.constraints.iter();
        let constraints = constraints.map(|constraint| Constraint::new(constraint, &identifier));
        let constraints = constraints.collect::<Result<_, _>>()?;
        let updates = rule.updates.clone().unwrap_or_default();
        let destination = match updates.identifier.as_str() {
            "" => identifier.clone(),
            destination => destination.to_owned(),
        };
        Ok(Self {
            action,
            identifier,
            kind,
            pattern,
            constraints,
            destination,
            attributes: updates.attrs.into_iter().collect(),
        })
    }

    fn matches(&self, source: &pb::SourceOp) -> bool {
        let satisfied = self.constraints.iter().all(|constraint| {
            let of = |key: &String| source.attrs.get(key).map_or("", String::as_str);
            match constraint {
                Constraint::Equal(key, value) => of(key) == value,
                Constraint::NotEqual(key, value) => of(key) != value,
                Constraint::Matches(key, pattern) => pattern.is_match(of(key)),
            }
        });
        let matching = |pattern: &Regex| pattern.is_match(&source.identifier);
        satisfied && (self.identifier == source.identifier || self.pattern.as_ref().is_some_and(matching))
    }

    fn convert(&self, source: &pb::SourceOp) -> pb::SourceOp {
        let identifier = &source.identifier;
        let destination = match (self.kind, &self.pattern) {
            (MatchType::Regex, Some(pattern)) => pattern
                .replace_all(identifier, self.destination.as_str())
                .into_owned(),
            (MatchType::Wildcard, Some(pattern)) => match pattern.captures(identifier) {
                Some(captures) => {
                    let mut destination = String::new();
                    captures.expand(&self.destination, &mut destination);
                    destination
                }
                None => identifier.clone(),
            },
            _ => self.destination.clone(),
        };
        let mut converted = source.clone();
        if !destination.is_empty() {
            converted.identifier = destination;
        }
        converted.attrs.extend(self.attributes.iter().cloned());
        converted
    }
}

impl Constraint {
    fn new(constraint: &AttrConstraint, identifier: &str) -> Result<Self, RuleError> {
        let (key, value) = (constraint.key.clone(), constraint.value.clone());
        match AttrMatch::try_from(constraint.condition) {
            Ok(AttrMatch::Equal) => Ok(Self::Equal(key, value)),
            Ok(AttrMatch::Notequal) => Ok(Self::NotEqual(key, value)),
            Ok(AttrMatch::Matches) => Ok(Self::Matches(key, compile(&value)?)),
            Err(_) => Err(RuleError::Condition {
                identifier: identifier.to_owned(),
                key,
                condition: constraint.condition,
            }),
        }
    }
}

fn compile(pattern: &str) -> Result<Regex, RuleError> {
    Regex::new(pattern).map_err(|source| RuleError::Pattern {
        pattern: pattern.to_owned(),
        source: Box::new(source),
    })
}

/// An identifier in the one spelling that rules are about: a folder of a repository without `..`.
fn normalized(identifier: &str) -> String {
    let folder = |rest: &str| {
        let (repository, fragment) = rest.split_once('#')?;
        let (reference, folder) = fragment.split_once(':')?;
        let mut names: Vec<&str> = Vec::new();
        for component in Path::new(folder).components() {
            match component {
                Component::Normal(name) => names.extend(name.to_str()),
                Component::ParentDir => drop(names.pop()),
                _ => {}
            }
        }
        Some(format!("git://{repository}#{reference}:{}", names.join("/")))
    };
    identifier
        .strip_prefix("git://")
        .and_then(folder)
        .unwrap_or_else(|| identifier.to_owned())
}

#[cfg(test)]
mod tests {
    use proto::sourcepolicy::{Selector, Update};

    use super::*;

    fn rule(action: PolicyAction, kind: MatchType, identifier: &str, to: Option<&str>) -> Rule {
        Rule {
            action: action.into(),
            selector: Some(Selector {
                identifier: identifier.to_owned(),
                match_type: kind.into(),
                constraints: Vec::new(),
            }),
            updates: to.map(|to| Update {
                identifier: to.to_owned(),
                attrs: Default::default(),
            }),
        }
    }

    fn rules(rules: &[Rule]) -> Result<Rules, RuleError> {
        Rules::new([&Policy {
            version: 1,
            rules: rules.to_vec(),
        }])
    }

    fn source(identifier: &str) -> pb::SourceOp {
        pb::SourceOp {
            identifier: identifier.to_owned(),
            ..Default::default()
        }
    }

    #[test]
    fn sources_are_allowed_denied_and_converted() {
        use MatchType::{Exact, Regex, Wildcard};
        use PolicyAction::{Allow, Convert, Deny};
        let applied = |given: &[Rule], identifier: &str| {
            let applied = rules(given)
                .unwrap()
                .apply(&source(identifier))
                .map(Cow::into_owned);
            applied
                .map(|source| source.identifier)
                .map_err(|error| error.to_string())
        };
        let all = rule(Deny, Wildcard, "*", None);
        let denied = "source \"docker-image://a:1\" denied by policy: source denied by policy";
        assert_eq!(
            applied(std::slice::from_ref(&all), "docker-image://a:1"),
            Err(denied.to_owned())
        );
        let some = rule(Allow, Wildcard, "docker-image://a*", None);
        let kept = applied(&[all.clone(), some.clone()], "docker-image://a:1");
        assert_eq!(kept.as_deref(), Ok("docker-image://a:1"));
        // A converted source is looked at again.
        let other = rule(
            Convert,
            Wildcard,
            "docker-image://b:*",
            Some("docker-image://a:${1}-x"),
        );
        let found = applied(&[all.clone(), some, other], "docker-image://b:3");
        assert_eq!(found.as_deref(), Ok("docker-image://a:3-x"));
        let pattern = rule(Convert, Regex, "^https://old/(.*)", Some("https://new/$1"));
        assert_eq!(
            applied(&[pattern], "https://old/f").as_deref(),
            Ok("https://new/f")
        );
        let exact = rule(Deny, Exact, "https://old/*", None);
        assert!(applied(&[exact], "https://old/f").is_ok());
        let folder = rule(Deny, Exact, "git://host/r#main:b", None);
        assert!(applied(&[folder], "git://host/r#main:a/../../b").is_err());
    }

    #[test]
    fn constraints_are_about_attributes() {
        let mut denied = rule(PolicyAction::Deny, MatchType::Wildcard, "https://*", None);
        denied.selector.as_mut().unwrap().constraints = vec![AttrConstraint {
            key: "http.checksum".into(),
            value: "^sha256:0".into(),
            condition: AttrMatch::Matches.into(),
        }];
        let rules = rules(&[denied]).unwrap();
        let mut file = source("https://a/b");
        assert!(rules.apply(&file).is_ok());
        file.attrs.insert("http.checksum".into(), "sha256:00".into());
        assert!(rules.apply(&file).is_err());
    }

    #[test]
    fn rules_without_sense_are_refused() {
        let mut nobody = rule(PolicyAction::Deny, MatchType::Exact, "a", None);
        nobody.selector = None;
        let mut unknown = rule(PolicyAction::Deny, MatchType::Exact, "a", None);
        unknown.action = 9000;
        for (given, text) in [
            (nobody, "invalid nil selector in policy"),
            (unknown, "unknown type"),
            (
                rule(PolicyAction::Convert, MatchType::Exact, "a", None),
                "missing destination for convert rule",
            ),
            (
                rule(PolicyAction::Deny, MatchType::Wildcard, "a**", None),
                "invalid wildcard",
            ),
            (
                rule(PolicyAction::Deny, MatchType::Regex, "(", None),
                "invalid pattern",
            ),
        ] {
            let error = rules(&[given]).unwrap_err().to_string();
            assert!(error.contains(text), "{error}");
        }
        let circle = [
            rule(PolicyAction::Convert, MatchType::Exact, "a", Some("b")),
            rule(PolicyAction::Convert, MatchType::Exact, "b", Some("a")),
        ];
        let rules = rules(&circle).unwrap();
        assert!(matches!(rules.apply(&source("a")), Err(RuleError::Circle(_))));
    }

    #[test]
    fn a_definition_keeps_together_when_a_source_becomes_another() {
        let image = pb::Op {
            op: Some(pb::op::Op::Source(source("docker-image://a"))),
            ..Default::default()
        }
        .encode_to_vec();
        let end = pb::Op {
            inputs: vec![pb::Input {
                digest: digest_of(&image),
                index: 0,
            }],
            ..Default::default()
        }
        .encode_to_vec();
        let definition = pb::Definition {
            metadata: [(digest_of(&image), pb::OpMetadata::default())].into(),
            def: vec![image.into(), end.into()],
            ..Default::default()
        };
        let given = [rule(
            PolicyAction::Convert,
            MatchType::Exact,
            "docker-image://a",
            Some("docker-image://b"),
        )];
        let rewritten = rules(&given).unwrap().rewrite(&definition).unwrap().unwrap();
        let rewritten = rewritten.definition;
        let digest = digest_of(&rewritten.def[0]);
        assert!(rewritten.metadata.contains_key(&digest));
        let end = pb::Op::decode(&rewritten.def[1][..]).unwrap();
        assert_eq!(end.inputs[0].digest, digest);
        assert!(Rules::default().rewrite(&definition).unwrap().is_none());
    }
}
