//! The sessions that one build may use: what one client cannot give, the next is asked for.

use std::sync::Arc;

use proto::policysession::{CheckPolicyRequest, CheckPolicyResponse};

use super::{Credentials, FileRequest, Files, Secret, Session, SessionError, Sessions, method};

#[derive(Clone, Debug)]
pub struct Group {
    sessions: Arc<Sessions>,
    ids: Arc<[Arc<str>]>,
}

impl Group {
    pub(super) fn new(sessions: Arc<Sessions>, ids: Arc<[Arc<str>]>) -> Self {
        Self { sessions, ids }
    }

    pub fn ids(&self) -> &[Arc<str>] {
        &self.ids
    }

    /// The group that has only the session `id`, which need not be one of this group's.
    pub fn only(&self, id: &str) -> Self {
        Self::new(Arc::clone(&self.sessions), [Arc::from(id)].into())
    }

    /// The sessions that offer `method`.
    pub async fn offering(&self, method: &'static str) -> Result<Vec<Arc<Session>>, SessionError> {
        let mut offering = Vec::new();
        let mut missing = None;
        for id in &*self.ids {
            match self.sessions.get(id).await {
                Ok(session) if session.supports(method) => offering.push(session),
                Ok(_) => {}
                Err(error) => missing = Some(error),
            }
        }
        match missing {
            Some(error) if offering.is_empty() => Err(error),
            _ => Ok(offering),
        }
    }

    /// Files of the first client that has a folder of that name.
    pub async fn sync_files(&self, wanted: &FileRequest) -> Result<(Arc<Session>, Files), SessionError> {
        let mut absent = SessionError::Unsupported {
            method: method::SYNC_FILES,
        };
        for session in self.offering(method::SYNC_FILES).await? {
            match session.sync_files(wanted).await {
                Ok(files) => return Ok((session, files)),
                Err(error) if error.is_absent() => absent = error,
                Err(error) => return Err(error),
            }
        }
        Err(absent)
    }

    /// Credentials of the first client that has some for `host`.
    pub async fn credentials(&self, host: &str) -> Result<Credentials, SessionError> {
        for session in self.offering(method::CREDENTIALS).await? {
            match session.credentials(host).await {
                Ok(Credentials::Anonymous) => {}
                Ok(credentials) => return Ok(credentials),
                Err(error) if error.is_absent() => {}
                Err(error) => return Err(error),
            }
        }
        Ok(Credentials::Anonymous)
    }

    /// The secret of the first client that has it.
    pub async fn secret(&self, id: &str) -> Result<Option<Secret>, SessionError> {
        for session in self.offering(method::GET_SECRET).await? {
            if let Some(secret) = session.secret(id).await? {
                return Ok(Some(secret));
            }
        }
        Ok(None)
    }

    /// What the policy of the first client that has one says of a source.
    pub async fn check_policy(
        &self,
        question: CheckPolicyRequest,
    ) -> Result<CheckPolicyResponse, SessionError> {
        match self.offering(method::CHECK_POLICY).await?.first() {
            Some(session) => session.check_policy(question).await,
            None => Err(SessionError::Unsupported {
                method: method::CHECK_POLICY,
            }),
        }
    }

    /// The first client that has an SSH agent of that name.
    pub async fn agent(&self, id: &str) -> Result<Option<Arc<Session>>, SessionError> {
        for session in self.offering(method::FORWARD_AGENT).await? {
            match session.check_agent(id).await {
                Ok(()) => return Ok(Some(session)),
                Err(error) if error.is_absent() => {}
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }

    /// The client that takes the output of the build.
    pub async fn receiver(&self) -> Result<Arc<Session>, SessionError> {
        self.offering(method::SEND_FILES)
            .await?
            .into_iter()
            .next()
            .ok_or(SessionError::Unsupported {
                method: method::SEND_FILES,
            })
    }
}
