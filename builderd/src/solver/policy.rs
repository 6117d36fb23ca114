//! What the client's policy says of sources: each is shown to it before it is used.
//!
//! The client may allow a source, refuse it, name another one to use in its place, or first ask what is known of it.

use proto::gateway::ResolveSourceMetaResponse;
use proto::pb;
use proto::policysession::check_policy_response::Result as Answer;
use proto::policysession::{CheckPolicyRequest, DecisionResponse};
use proto::sourcepolicy::PolicyAction;

use proto::errdefs::{Decision, Denial};

use super::Job;
use super::provenance::Scope;
use super::rules::{RuleError, Rules};
use super::source_meta::SourceMetaError;
use crate::session::{Group, SessionError};

/// How often a policy may ask about one source.
const MOST_QUESTIONS: usize = 10;

/// Whether a policy may ask what is known of a source, which the daemon then looks up.
#[derive(Clone, Copy)]
enum Questions {
    Answered,
    Refused,
}

/// What a client says about the sources that its build may use.
#[derive(Debug, Default)]
pub struct SourcePolicy {
    pub rules: Rules,
    /// The session that is asked about every source, after the rules.
    pub session: Option<Group>,
}

#[derive(Debug, thiserror::Error)]
pub enum PolicyError {
    #[error("source {identifier:?} not allowed by policy: action DENY{}", listed(.messages))]
    Denied {
        identifier: String,
        messages: Vec<String>,
    },
    #[error(transparent)]
    Rules(#[from] RuleError),
    #[error("too many policy requests: more than {MOST_QUESTIONS} about source {0:?}")]
    Insatiable(String),
    #[error("the policy asks about another source than {0:?}")]
    OtherSource(String),
    #[error("the policy gives no answer for source {0:?}")]
    NoAnswer(String),
    #[error(
        "the policy asks for the metadata of {0:?}, which is not available for requests of steps: it must decide by their \
         addresses"
    )]
    NoMetadata(String),
    #[error("cannot tell the policy what it asks about {identifier:?}")]
    Metadata {
        identifier: String,
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    #[error("cannot ask the client's policy")]
    Session(#[from] SessionError),
}

impl PolicyError {
    /// For clients that show what the policy said.
    pub(crate) fn decision(&self) -> Option<Decision> {
        let Self::Denied { messages, .. } = self else {
            return None;
        };
        let denial = |message: &String| Denial {
            message: message.clone(),
        };
        Some(Decision {
            action: PolicyAction::Deny.into(),
            deny_messages: messages.iter().map(denial).collect(),
        })
    }
}

fn listed(messages: &[String]) -> String {
    if messages.is_empty() {
        String::new()
    } else {
        format!(": {}", messages.join(", "))
    }
}

impl Job {
    /// A source that is named outside of definitions: what rules and session make of it.
    pub(crate) async fn allowed(
        &self,
        source: &pb::SourceOp,
        platform: Option<&pb::Platform>,
        rules: &Rules,
    ) -> Result<pb::SourceOp, PolicyError> {
        let source = self.rules().apply(source)?;
        let source = rules.apply(&source)?;
        self.permitted(&source, platform).await
    }

    /// What a step asks for. Only the step's proxy may ask servers for it: looked up by the daemon, it would be taken from
    /// the daemon's own network, which the step does not have.
    pub(super) async fn allowed_to_step(&self, source: &pb::SourceOp) -> Result<pb::SourceOp, PolicyError> {
        let source = self.rules().apply(source)?;
        self.judged(&source, None, Questions::Refused).await
    }

    /// The source to use, which is another one if the policy says so.
    pub(super) async fn permitted(
        &self,
        source: &pb::SourceOp,
        platform: Option<&pb::Platform>,
    ) -> Result<pb::SourceOp, PolicyError> {
        self.judged(source, platform, Questions::Answered).await
    }

    async fn judged(
        &self,
        source: &pb::SourceOp,
        platform: Option<&pb::Platform>,
        questions: Questions,
    ) -> Result<pb::SourceOp, PolicyError> {
        let Some(policy) = self.policy() else {
            return Ok(source.clone());
        };
        let mut source = source.clone();
        let mut known = about(&source);
        // What only a policy wants to know is no part of the build.
        let nobody = Scope::default();
        for _ in 0..MOST_QUESTIONS {
            let identifier = || dockerfile::address::without_credentials(&source.identifier);
            let question = CheckPolicyRequest {
                platform: platform.cloned(),
                source: Some(known),
                ..CheckPolicyRequest::default()
            };
            let asked = match policy.check_policy(question).await?.result {
                Some(Answer::Decision(decision)) => {
                    let converted = decision.action() == PolicyAction::Convert;
                    let decided = decide(&source, decision, identifier())?;
                    if !converted {
                        return Ok(source);
                    }
                    // Another source is looked at like any other.
                    source = self.rules().apply(&decided)?.into_owned();
                    known = about(&source);
                    continue;
                }
                Some(Answer::Request(asked)) => match questions {
                    Questions::Answered => asked,
                    Questions::Refused => return Err(PolicyError::NoMetadata(identifier())),
                },
                None => return Err(PolicyError::NoAnswer(identifier())),
            };
            let same = |other: &pb::SourceOp| *other == source;
            if !asked.source.as_ref().is_some_and(same) {
                return Err(PolicyError::OtherSource(identifier()));
            }
            known = Box::pin(self.source_meta(&nobody, asked))
                .await
                .map_err(|error: SourceMetaError| PolicyError::Metadata {
                    identifier: identifier(),
                    source: error.into(),
                })?;
            // The answer is about the source as it was asked for, whatever it was resolved to.
            known.source = Some(source.clone());
        }
        Err(PolicyError::Insatiable(source.identifier))
    }
}

fn about(source: &pb::SourceOp) -> ResolveSourceMetaResponse {
    ResolveSourceMetaResponse {
        source: Some(source.clone()),
        ..ResolveSourceMetaResponse::default()
    }
}

fn decide(
    source: &pb::SourceOp,
    decision: DecisionResponse,
    identifier: String,
) -> Result<pb::SourceOp, PolicyError> {
    match (decision.action(), decision.update) {
        (PolicyAction::Allow, _) => Ok(source.clone()),
        (PolicyAction::Convert, Some(update)) => Ok(update),
        (PolicyAction::Convert, None) => Err(PolicyError::NoAnswer(identifier)),
        (PolicyAction::Deny, _) => {
            let said = decision.deny_messages.into_iter();
            let messages = said.map(|message| message.message).collect();
            Err(PolicyError::Denied { identifier, messages })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_decision_is_followed() {
        let source = |identifier: &str| pb::SourceOp {
            identifier: identifier.to_owned(),
            ..pb::SourceOp::default()
        };
        let decided = |action: PolicyAction, update: Option<&str>| {
            let decision = DecisionResponse {
                action: action.into(),
                deny_messages: vec![proto::policysession::DenyMessage {
                    message: "too old".to_owned(),
                }],
                update: update.map(source),
            };
            decide(&source("git://a"), decision, "git://a".to_owned())
                .map(|source| source.identifier)
                .map_err(|error| error.to_string())
        };
        assert_eq!(decided(PolicyAction::Allow, None), Ok("git://a".to_owned()));
        assert_eq!(
            decided(PolicyAction::Convert, Some("git://b")),
            Ok("git://b".to_owned())
        );
        assert_eq!(
            decided(PolicyAction::Deny, None),
            Err("source \"git://a\" not allowed by policy: action DENY: too old".to_owned())
        );
        assert!(decided(PolicyAction::Convert, None).is_err());
    }
}
