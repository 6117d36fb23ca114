//! What steps may use while they run and do not keep: secrets, SSH agents, devices, caches.

use std::collections::BTreeMap;

use proto::pb;

use super::Job;
use crate::executor::step;
use crate::ops::OpError;
use crate::ops::exec::{Agents, Caches, Lent, Secrets};
use crate::store::Snapshot;

impl Job {
    /// Asks the clients for the secrets of a step; one that is not optional must be there.
    pub(super) async fn secrets(&self, op: &pb::ExecOp) -> Result<Secrets, OpError> {
        let named: Vec<(&str, bool)> = Secrets::named(op).collect();
        let mut found = BTreeMap::new();
        for (id, optional) in named {
            match self.sessions().secret(id).await {
                Ok(Some(secret)) => {
                    found.insert(id.to_owned(), step::Secret(secret.expose().to_vec()));
                }
                Ok(None) if optional => {}
                Err(error) if optional && error.is_absent() => {}
                Ok(None) => return Err(OpError::NoSecret { id: id.to_owned() }),
                Err(error) => {
                    return Err(OpError::Secret {
                        id: id.to_owned(),
                        source: error.into(),
                    });
                }
            }
        }
        Ok(Secrets::new(found))
    }

    /// Looks for the clients that have the SSH agents of a step.
    async fn agents(&self, op: &pb::ExecOp) -> Result<Agents, OpError> {
        let mut found = BTreeMap::new();
        for (id, optional) in Agents::named(op) {
            match self.sessions().agent(id).await {
                Ok(Some(session)) => {
                    found.insert(id.to_owned(), session);
                }
                Ok(None) | Err(_) if optional => {}
                Ok(None) => return Err(OpError::NoAgent { id: agent_name(id) }),
                Err(error) if error.is_absent() => return Err(OpError::NoAgent { id: agent_name(id) }),
                Err(error) => {
                    return Err(OpError::Agent {
                        id: agent_name(id),
                        source: error.into(),
                    });
                }
            }
        }
        Ok(Agents::new(found))
    }

    /// What a step may use while it runs: of the clients, and of earlier builds.
    pub(super) async fn lent(
        &self,
        op: &pb::ExecOp,
        inputs: &[Snapshot],
        fresh: bool,
    ) -> Result<Lent, OpError> {
        Ok(Lent {
            secrets: self.secrets(op).await?,
            agents: self.agents(op).await?,
            devices: self.devices(op)?,
            caches: self.caches(op, inputs, fresh).await?,
        })
    }

    /// The caches of a step. A build that uses no cache begins those anew, once.
    async fn caches(&self, op: &pb::ExecOp, inputs: &[Snapshot], fresh: bool) -> Result<Caches, OpError> {
        let caches = Caches::take(op, inputs, self.solver().flights()).await;
        for key in caches.keys().filter(|_| fresh) {
            self.renew_cache(key).map_err(|source| OpError::CacheMount {
                target: "of a step without cache".to_owned(),
                source,
            })?;
        }
        caches.fill(op, inputs, self.store()).await?;
        Ok(caches)
    }
}

fn agent_name(id: &str) -> String {
    if id.is_empty() { "default" } else { id }.to_owned()
}
