//! Which sessions there are.

use std::collections::{HashMap, HashSet};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use futures::{Stream, StreamExt};
use proto::control::BytesMessage;
use proto::headers;
use proto::tunnel::{self, Tunnel};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tonic::Status;
use tonic::metadata::MetadataMap;
use tonic::transport::Channel;

use super::{Group, SessionError, health};

/// How long a build waits for a session that is not there yet.
const PATIENCE: Duration = Duration::from_secs(5);

/// The sessions of all clients.
#[derive(Debug)]
pub struct Sessions {
    by_id: Mutex<HashMap<Arc<str>, Arc<Session>>>,
    /// Changes whenever a session is added.
    added: watch::Sender<()>,
}

/// One client's session.
#[derive(Debug)]
pub struct Session {
    id: Arc<str>,
    shared_key: String,
    /// Lower case.
    methods: HashSet<String>,
    channel: Channel,
    closed: CancellationToken,
}

impl Default for Sessions {
    fn default() -> Self {
        Self {
            by_id: Mutex::default(),
            added: watch::Sender::new(()),
        }
    }
}

impl Sessions {
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// The session with this id, as soon as it is there.
    pub async fn get(&self, id: &str) -> Result<Arc<Session>, SessionError> {
        let mut added = self.added.subscribe();
        let found = tokio::time::timeout(PATIENCE, async {
            loop {
                if let Some(session) = self.lock().get(id) {
                    return Some(Arc::clone(session));
                }
                added.changed().await.ok()?;
            }
        });
        found
            .await
            .ok()
            .flatten()
            .ok_or_else(|| SessionError::Missing { id: id.into() })
    }

    /// The sessions that a build may use, in this order.
    pub fn group<I>(self: &Arc<Self>, ids: I) -> Group
    where
        I: IntoIterator,
        I::Item: Into<Arc<str>>,
    {
        Group::new(
            Arc::clone(self),
            ids.into_iter()
                .map(Into::into)
                .filter(|id| !id.is_empty())
                .collect(),
        )
    }

    /// Takes up the session of a `Control/Session` call. It stays as long as the returned stream, which is the
    /// call's response.
    pub async fn open<S>(
        self: &Arc<Self>,
        metadata: &MetadataMap,
        incoming: S,
    ) -> Result<SessionStream, SessionError>
    where
        S: Stream<Item = Result<BytesMessage, Status>> + Send + 'static,
    {
        let id: Arc<str> = headers::value(metadata, headers::SESSION_ID)
            .filter(|id| !id.is_empty())
            .ok_or(SessionError::NoId)?
            .into();
        let (tunnel, outgoing) = Tunnel::new(incoming.map(|message| message.map(|message| message.data)));
        // The daemon speaks first: two ends that wait for each other hang for ever.
        let channel = tunnel::connect(tunnel).await.map_err(SessionError::Connect)?;
        let session = Arc::new(Session {
            id: Arc::clone(&id),
            shared_key: headers::value(metadata, headers::SESSION_SHARED_KEY).unwrap_or_default(),
            methods: headers::values(metadata, headers::SESSION_METHOD)
                .into_iter()
                .map(|method| method.to_ascii_lowercase())
                .collect(),
            channel,
            closed: CancellationToken::new(),
        });
        let mut tasks = JoinSet::new();
        let timeout = headers::value(metadata, headers::SESSION_HEALTH_TIMEOUT)
            .and_then(|text| text.parse().ok())
            .map(Duration::from_millis);
        tasks.spawn(health::watch(
            session.channel.clone(),
            session.closed.clone(),
            timeout,
        ));
        self.lock().insert(id, Arc::clone(&session));
        self.added.send_replace(());
        tracing::debug!(session = %session.id, "session opened");
        let closed = session.closed.clone().cancelled_owned();
        Ok(SessionStream {
            outgoing: outgoing
                .take_until(closed)
                .map(|data| Ok(BytesMessage { data }))
                .boxed(),
            _entry: Entry {
                sessions: Arc::clone(self),
                session,
            },
            _tasks: tasks,
        })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Arc<str>, Arc<Session>>> {
        // Every change is one insertion or removal: the map is whole even if a holder panicked.
        self.by_id.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Session {
    pub fn id(&self) -> &Arc<str> {
        &self.id
    }

    /// Names the client and its folder across builds.
    pub fn shared_key(&self) -> &str {
        &self.shared_key
    }

    /// Cancelled when the session is over; builds that need it end.
    pub fn closed(&self) -> &CancellationToken {
        &self.closed
    }

    /// Whether the client offers `/package.Service/Method`.
    pub fn supports(&self, method: &str) -> bool {
        self.methods.contains(&method.to_ascii_lowercase())
    }

    pub(super) fn channel(&self) -> Channel {
        self.channel.clone()
    }
}

/// The response of a `Control/Session` call. Dropping it ends the session.
pub struct SessionStream {
    outgoing: Pin<Box<dyn Stream<Item = Result<BytesMessage, Status>> + Send>>,
    _entry: Entry,
    _tasks: JoinSet<()>,
}

impl std::fmt::Debug for SessionStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SessionStream")
            .field("session", &self._entry.session.id)
            .finish_non_exhaustive()
    }
}

impl Stream for SessionStream {
    type Item = Result<BytesMessage, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.outgoing.as_mut().poll_next(cx)
    }
}

struct Entry {
    sessions: Arc<Sessions>,
    session: Arc<Session>,
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.session.closed.cancel();
        let mut sessions = self.sessions.lock();
        // Another session may have taken the id over.
        if sessions
            .get(&self.session.id)
            .is_some_and(|entry| Arc::ptr_eq(entry, &self.session))
        {
            sessions.remove(&self.session.id);
        }
        tracing::debug!(session = %self.session.id, "session closed");
    }
}
