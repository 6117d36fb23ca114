//! What the client's policy says of sources: each is shown to it before it is used.
//!
//! The client may allow a source, refuse it, name another one to use in its place, or first ask what is known of it.

use proto::gateway::ResolveSourceMetaResponse;
use proto::pb;
use proto::policysession::check_policy_response::Result as Answer;
use proto::policysession::{CheckPolicyRequest, DecisionResponse};
use proto::sourcepolicy::PolicyAction;

use super::Job;
use super::provenance::Scope;
use super::source_meta::SourceMetaError;
use crate::session::SessionError;

/// How often a policy may ask about one source.
const MOST_QUESTIONS: usize = 10;

#[derive(Debug, thiserror::Error)]
pub enum PolicyError {
    #[error("source {identifier:?} not allowed by policy{messages}")]
    Denied { identifier: String, messages: String },
    #[error("the policy asks more than {MOST_QUESTIONS} times about source {0:?}")]
    Insatiable(String),
    #[error("the policy asks about another source than {0:?}")]
    OtherSource(String),
    #[error("the policy gives no answer for source {0:?}")]
    NoAnswer(String),
    #[error("cannot tell the policy what it asks about {identifier:?}")]
    Metadata {
        identifier: String,
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    #[error("cannot ask the client's policy")]
    Session(#[from] SessionError),
}

impl Job {
    /// The source to use, which is another one if the policy says so.
    pub(super) async fn permitted(
        &self,
        source: &pb::SourceOp,
        platform: Option<&pb::Platform>,
    ) -> Result<pb::SourceOp, PolicyError> {
        let Some(policy) = self.policy() else {
            return Ok(source.clone());
        };
        let identifier = || dockerfile::address::without_credentials(&source.identifier);
        let mut known = ResolveSourceMetaResponse {
            source: Some(source.clone()),
            ..ResolveSourceMetaResponse::default()
        };
        // What only a policy wants to know is no part of the build.
        let nobody = Scope::default();
        for _ in 0..MOST_QUESTIONS {
            let question = CheckPolicyRequest {
                platform: platform.cloned(),
                source: Some(known),
                ..CheckPolicyRequest::default()
            };
            let asked = match policy.check_policy(question).await?.result {
                Some(Answer::Decision(decision)) => return decide(source, decision, identifier()),
                Some(Answer::Request(asked)) => asked,
                None => return Err(PolicyError::NoAnswer(identifier())),
            };
            let same = |other: &pb::SourceOp| other.identifier == source.identifier;
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
        Err(PolicyError::Insatiable(identifier()))
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
            let said: Vec<String> = decision
                .deny_messages
                .into_iter()
                .map(|message| message.message)
                .collect();
            let messages = if said.is_empty() {
                String::new()
            } else {
                format!(": {}", said.join(", "))
            };
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
            Err("source \"git://a\" not allowed by policy: too old".to_owned())
        );
        assert!(decided(PolicyAction::Convert, None).is_err());
    }
}
