//! The clients' SSH agents as sockets in a step.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::sync::Arc;

use proto::pb;

use crate::executor::step::{Mount, Source};
use crate::ops::OpError;
use crate::session::{AgentSocket, Session};
use crate::store::{LayerDraft, Store};

/// Who has the agents of a step, by their ids, as far as they are there.
#[derive(Debug, Default)]
pub struct Agents(BTreeMap<String, Arc<Session>>);

/// A socket that answers until it is dropped.
#[derive(Debug)]
pub(super) struct Socket {
    _relay: AgentSocket,
    /// The private folder that it is in.
    _folder: LayerDraft,
}

impl Agents {
    pub fn new(found: BTreeMap<String, Arc<Session>>) -> Self {
        Self(found)
    }

    /// The agents that an operation names, and whether it can do without.
    pub fn named(op: &pb::ExecOp) -> impl Iterator<Item = (&str, bool)> {
        op.mounts.iter().filter_map(|mount| {
            let option = mount.ssh_opt.as_ref()?;
            Some((option.id.as_str(), option.optional))
        })
    }

    /// The mount of an agent; none if it is optional and not there.
    pub(super) fn mount(&self, mount: &pb::Mount, store: &Store) -> Result<Option<(Mount, Socket)>, OpError> {
        let Some(option) = &mount.ssh_opt else {
            return Ok(None);
        };
        let Some(session) = self.0.get(&option.id) else {
            return Ok(None);
        };
        let folder = store.draft()?;
        let listen = || -> io::Result<AgentSocket> {
            let socket = AgentSocket::listen(&folder.work(), Arc::clone(session), &option.id)?;
            chown(socket.path(), Some(option.uid), Some(option.gid))?;
            fs::set_permissions(socket.path(), fs::Permissions::from_mode(option.mode & 0o777))?;
            Ok(socket)
        };
        let relay = listen().map_err(|source| OpError::AgentSocket {
            id: option.id.clone(),
            source,
        })?;
        let mount = Mount {
            destination: mount.dest.clone(),
            source: Source::Socket {
                path: relay.path().to_owned(),
            },
            read_only: false,
        };
        let socket = Socket {
            _relay: relay,
            _folder: folder,
        };
        Ok(Some((mount, socket)))
    }
}
