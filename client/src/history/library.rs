//! Where records are looked up: the nodes of a builder, all asked at the same time, and what was imported.

use std::path::PathBuf;

use jiff::Timestamp;
use proto::control::control_client::ControlClient;
use proto::control::{
    BuildHistoryEventType, BuildHistoryRecord, BuildHistoryRequest, UpdateBuildHistoryRequest,
};
use tonic::transport::Channel;
use tonic::{Code, Status};

use super::blobs::{BlobError, Blobs};
use super::filters::{self, Filter};
use super::imported::{self, Imported};
use super::local_state::{self, LocalState};
use super::{Outcome, Reference, timestamp};
use crate::daemon;
use crate::instance::{self, Builders, InstanceError, LoadedNode};
use crate::settings::Settings;

/// As many records are listed.
const LIMIT: i32 = 50;
/// The daemon's clock, in the header of its answer.
const CLOCK: &str = "buildkit-current-timestamp";

#[derive(Debug, thiserror::Error)]
pub enum HistoryError {
    #[error(
        "\"{text}\" names no build record: write an id, BUILDER/NODE/ID, or ^1 for the one before the latest"
    )]
    Reference { text: String },
    #[error("invalid offset \"{text}\": write ^0 for the latest build, ^1 for the one before")]
    Offset { text: String },
    #[error("no records found: builder \"{builder}\" keeps none of a build")]
    Nothing { builder: String },
    #[error("no record found for ref \"{text}\": `trimaran history ls` shows what there is")]
    NotFound { text: String },
    #[error("no build found with offset {offset}, there are {count}")]
    TooFarBack { offset: usize, count: usize },
    #[error("ref \"{text}\" is the beginning of several: {}", .found.join(", "))]
    Ambiguous { text: String, found: Vec<String> },
    #[error("invalid filter \"{text}\": {reason}")]
    Filter { text: String, reason: String },
    #[error(transparent)]
    Instance(Box<InstanceError>),
    #[error("node {node} of builder \"{builder}\" cannot be asked")]
    Node {
        builder: String,
        node: String,
        source: Box<InstanceError>,
    },
    #[error("{action} on node {node}")]
    Call {
        action: &'static str,
        node: String,
        source: Box<Status>,
    },
    #[error("the daemon of node {node} keeps no build records")]
    NoHistory { node: String },
    #[error(transparent)]
    Blob(#[from] BlobError),
    #[error("{action} {}", path.display())]
    File {
        action: &'static str,
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("{} is no build record", path.display())]
    Record {
        path: PathBuf,
        source: serde_json::Error,
    },
    #[error("an entry of the build's log cannot be read")]
    Log(#[source] prost::DecodeError),
    #[error("the build's log is cut off")]
    CutLog,
}

impl From<InstanceError> for HistoryError {
    fn from(error: InstanceError) -> Self {
        Self::Instance(Box::new(error))
    }
}

/// A daemon that keeps records.
#[derive(Clone, Debug)]
pub struct Keeper {
    pub builder: String,
    pub node: String,
    pub channel: Channel,
    /// What the daemon itself runs on.
    pub platform: Option<String>,
}

/// A record and where it is kept.
#[derive(Clone, Debug)]
pub struct Found {
    pub record: BuildHistoryRecord,
    pub builder: String,
    pub node: String,
    pub place: Place,
    /// The clock of the daemon when it was asked.
    pub now: Option<Timestamp>,
    /// The platform of the daemon that built it, as far as it is known.
    pub platform: Option<String>,
    /// What came with an imported record.
    pub remembered: Option<LocalState>,
}

#[derive(Clone, Debug)]
pub enum Place {
    Daemon(Channel),
    Imported(PathBuf),
}

impl Found {
    pub fn id(&self) -> &str {
        &self.record.r#ref
    }

    pub fn full_name(&self) -> String {
        format!("{}/{}/{}", self.builder, self.node, self.record.r#ref)
    }

    /// The files that belong to the record.
    pub fn blobs(&self) -> Blobs {
        match &self.place {
            Place::Daemon(channel) => Blobs::daemon(channel.clone()),
            Place::Imported(folder) => Blobs::folder(folder),
        }
    }

    /// What this machine remembers of the build.
    pub fn local_state(&self, settings: &Settings) -> Option<LocalState> {
        match self.place {
            Place::Daemon(_) => local_state::read(settings, &self.builder, &self.node, self.id()),
            Place::Imported(_) => self.remembered.clone(),
        }
    }

    /// Nanoseconds that it took, or has taken until now.
    pub fn duration(&self) -> Option<i128> {
        filters::duration(&self.record).or_else(|| {
            let start = timestamp(self.record.created_at.as_ref()?)?;
            Some(self.now?.as_nanosecond() - start.as_nanosecond())
        })
    }

    fn started(&self) -> (i64, i32) {
        self.record
            .created_at
            .as_ref()
            .map_or((0, 0), |time| (time.seconds, time.nanos))
    }
}

/// Which records are wanted.
#[derive(Clone, Debug, Default)]
pub struct Query {
    pub filters: Vec<String>,
    pub completed_only: bool,
}

#[derive(Debug)]
pub struct Library {
    builder: String,
    keepers: Vec<Keeper>,
    imported: Option<Imported>,
}

impl Library {
    /// The library of a builder, whose daemons are started if they do not run. Imported records belong to it unless the
    /// user named a builder; those alone are the builder [`imported::BUILDER`].
    pub async fn open(
        settings: &Settings,
        chosen: Option<&str>,
        boot: impl AsyncFnOnce(&crate::builders::Builder, &[LoadedNode]) -> anyhow::Result<bool>,
    ) -> anyhow::Result<Self> {
        let imported = Imported::of(settings);
        if chosen == Some(imported::BUILDER) {
            return Ok(Self {
                builder: imported::BUILDER.to_owned(),
                keepers: Vec::new(),
                imported: Some(imported),
            });
        }
        let builder = Builders::new(settings).find(chosen).await?;
        let mut nodes = instance::load(settings, &builder, TIMEOUT).await;
        if boot(&builder, &nodes).await? {
            nodes = instance::load(settings, &builder, TIMEOUT).await;
        }
        Ok(Self {
            keepers: keepers(&builder.name, nodes)?,
            builder: builder.name,
            imported: chosen.is_none().then_some(imported),
        })
    }

    pub fn keepers(&self) -> &[Keeper] {
        &self.keepers
    }

    pub fn imported(&self) -> Option<&Imported> {
        self.imported.as_ref()
    }

    /// Records that match, the latest first.
    pub async fn list(&self, query: &Query) -> Result<Vec<Found>, HistoryError> {
        let now = Timestamp::now();
        let filters = query
            .filters
            .iter()
            .map(|text| Filter::parse(text, now))
            .collect::<Result<Vec<_>, _>>()?;
        let request = BuildHistoryRequest {
            early_exit: true,
            limit: LIMIT,
            filter: filters::line_for_daemon(&filters).into_iter().collect(),
            ..BuildHistoryRequest::default()
        };
        let mut found = self.answers(&request).await?;
        found.retain(|found| {
            filters.iter().all(|filter| filter.matches(&found.record))
                && !(query.completed_only && found.record.completed_at.is_none())
        });
        found.sort_by_key(|found| std::cmp::Reverse(found.started()));
        Ok(found)
    }

    /// The record that is meant. With several nodes that know the same build, the first of them.
    pub async fn find(&self, text: &str, query: &Query) -> Result<Found, HistoryError> {
        self.find_all(text, query)
            .await
            .map(|mut found| found.swap_remove(0))
    }

    /// The record that is meant, on all nodes that have it: at least one.
    pub async fn find_all(&self, text: &str, query: &Query) -> Result<Vec<Found>, HistoryError> {
        match Reference::parse(text)? {
            Reference::Back(offset) => {
                let all = self.list(query).await?;
                let count = all.len();
                if count == 0 {
                    return Err(HistoryError::Nothing {
                        builder: self.builder.clone(),
                    });
                }
                let Some(id) = all.get(offset).map(|found| found.id().to_owned()) else {
                    return Err(HistoryError::TooFarBack { offset, count });
                };
                Ok(all.into_iter().filter(|found| found.id() == id).collect())
            }
            Reference::Id { place, id } => {
                let in_place = |found: &Found| match &place {
                    Some((builder, node)) => found.builder == *builder && found.node == *node,
                    None => true,
                };
                let mut found = self.named(&id, query).await?;
                found.retain(in_place);
                if found.is_empty() {
                    found = self.list(query).await?;
                    found.retain(|found| in_place(found) && found.id().starts_with(&id));
                }
                let mut ids: Vec<String> = found.iter().map(|found| found.id().to_owned()).collect();
                ids.dedup();
                match ids.len() {
                    0 => Err(HistoryError::NotFound {
                        text: text.to_owned(),
                    }),
                    1 => Ok(found),
                    _ => Err(HistoryError::Ambiguous {
                        text: text.to_owned(),
                        found: ids,
                    }),
                }
            }
        }
    }

    /// What all daemons answer, and everything that was imported.
    async fn answers(&self, request: &BuildHistoryRequest) -> Result<Vec<Found>, HistoryError> {
        let asked = self.keepers.iter().map(|keeper| ask(keeper, request.clone()));
        let mut found: Vec<Found> = futures::future::try_join_all(asked)
            .await?
            .into_iter()
            .flatten()
            .collect();
        if let Some(imported) = &self.imported {
            found.extend(imported.list()?);
        }
        Ok(found)
    }

    /// Records with exactly this id.
    async fn named(&self, id: &str, query: &Query) -> Result<Vec<Found>, HistoryError> {
        let request = BuildHistoryRequest {
            r#ref: id.to_owned(),
            early_exit: true,
            limit: LIMIT,
            ..BuildHistoryRequest::default()
        };
        let mut found = self.answers(&request).await?;
        found.retain(|found| {
            found.id() == id && !(query.completed_only && found.record.completed_at.is_none())
        });
        Ok(found)
    }

    /// Removes a record; whether it was there.
    pub async fn remove(&self, found: &Found) -> Result<bool, HistoryError> {
        match &found.place {
            Place::Imported(_) => match &self.imported {
                Some(imported) => imported.remove(found.id()),
                None => Ok(false),
            },
            Place::Daemon(channel) => {
                delete(channel.clone(), &found.node, found.id()).await?;
                Ok(true)
            }
        }
    }

    /// Has the daemon write what it may have put off: the trace.
    pub async fn finalize(&self, found: &Found) -> Result<Found, HistoryError> {
        let Place::Daemon(channel) = &found.place else {
            return Ok(found.clone());
        };
        let request = UpdateBuildHistoryRequest {
            r#ref: found.id().to_owned(),
            finalize: true,
            ..UpdateBuildHistoryRequest::default()
        };
        let finalized = daemon::control(channel.clone())
            .update_build_history(request)
            .await;
        finalized.map_err(|status| failed("finalizing a build record", &found.node, status))?;
        self.find(&found.full_name(), &Query::default()).await
    }
}

const TIMEOUT: std::time::Duration = std::time::Duration::from_secs(20);

/// The daemons of the nodes, all of which must answer.
fn keepers(builder: &str, nodes: Vec<LoadedNode>) -> Result<Vec<Keeper>, HistoryError> {
    nodes
        .into_iter()
        .map(|loaded| {
            let node = loaded.node.name.clone();
            let state = loaded.state.map_err(|source| HistoryError::Node {
                builder: builder.to_owned(),
                node: node.clone(),
                source: Box::new(source),
            })?;
            let channel = match (state.channel, loaded.driver) {
                (Some(channel), _) => channel,
                (None, Some(driver)) => driver.channel().map_err(InstanceError::Driver)?,
                (None, None) => {
                    return Err(HistoryError::NoHistory { node });
                }
            };
            let platforms = state.info.map(|info| info.platforms).unwrap_or_default();
            Ok(Keeper {
                builder: builder.to_owned(),
                node,
                channel,
                platform: platforms.first().map(ToString::to_string),
            })
        })
        .collect()
}

async fn ask(keeper: &Keeper, request: BuildHistoryRequest) -> Result<Vec<Found>, HistoryError> {
    let wrong = |status: Status| match status.code() {
        Code::Unimplemented => HistoryError::NoHistory {
            node: keeper.node.clone(),
        },
        _ => failed("asking for build records", &keeper.node, status),
    };
    let mut control: ControlClient<Channel> = daemon::control(keeper.channel.clone());
    let response = control.listen_build_history(request).await.map_err(wrong)?;
    let now = response
        .metadata()
        .get(CLOCK)
        .and_then(|value| value.to_str().ok()?.parse().ok());
    let mut events = response.into_inner();
    let mut found = Vec::new();
    while let Some(event) = events.message().await.map_err(wrong)? {
        let is_deleted = event.r#type() == BuildHistoryEventType::Deleted;
        if let Some(record) = event.record.filter(|_| !is_deleted) {
            found.push(Found {
                record,
                builder: keeper.builder.clone(),
                node: keeper.node.clone(),
                place: Place::Daemon(keeper.channel.clone()),
                now,
                platform: keeper.platform.clone(),
                remembered: None,
            });
        }
    }
    Ok(found)
}

fn failed(action: &'static str, node: &str, status: Status) -> HistoryError {
    HistoryError::Call {
        action,
        node: node.to_owned(),
        source: Box::new(status),
    }
}

impl Keeper {
    /// The ids of all completed builds.
    pub async fn completed(&self) -> Result<Vec<String>, HistoryError> {
        let request = BuildHistoryRequest {
            early_exit: true,
            ..BuildHistoryRequest::default()
        };
        let found = ask(self, request).await?;
        Ok(found
            .into_iter()
            .filter(|found| Outcome::of(&found.record) != Outcome::Running)
            .map(|found| found.record.r#ref)
            .collect())
    }

    pub async fn delete(&self, id: &str) -> Result<(), HistoryError> {
        delete(self.channel.clone(), &self.node, id).await
    }
}

async fn delete(channel: Channel, node: &str, id: &str) -> Result<(), HistoryError> {
    let request = UpdateBuildHistoryRequest {
        r#ref: id.to_owned(),
        delete: true,
        ..UpdateBuildHistoryRequest::default()
    };
    let deleted = daemon::control(channel).update_build_history(request).await;
    deleted
        .map(drop)
        .map_err(|status| failed("removing a build record", node, status))
}
