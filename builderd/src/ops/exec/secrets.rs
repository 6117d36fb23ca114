//! What a step is told in confidence: files and variables that exist only while it runs and leave no trace.

use std::collections::BTreeMap;

use proto::pb;

use crate::executor::step::{self, Mount, Source};
use crate::ops::OpError;
use crate::session::{Group, Secret};

/// The secrets that an operation names, as far as the clients have them.
#[derive(Debug, Default)]
pub struct Secrets(BTreeMap<String, Secret>);

impl Secrets {
    /// Asks the clients; one that is not optional must be there.
    pub async fn fetch(op: &pb::ExecOp, sessions: &Group) -> Result<Self, OpError> {
        let of_files = op.mounts.iter().filter_map(|mount| {
            let option = mount.secret_opt.as_ref()?;
            Some((option.id.as_str(), option.optional))
        });
        let of_variables = op
            .secretenv
            .iter()
            .map(|variable| (variable.id.as_str(), variable.optional));
        let mut found = BTreeMap::new();
        for (id, optional) in of_files.chain(of_variables) {
            if found.contains_key(id) {
                continue;
            }
            match sessions.secret(id).await {
                Ok(Some(secret)) => drop(found.insert(id.to_owned(), secret)),
                Ok(None) if optional => {}
                Err(error) if optional && error.is_absent() => {}
                Ok(None) => return Err(OpError::NoSecret { id: id.to_owned() }),
                Err(source) => {
                    return Err(OpError::Secret {
                        id: id.to_owned(),
                        source,
                    });
                }
            }
        }
        Ok(Self(found))
    }

    /// The mount of a secret; none if it is optional and not there.
    pub(super) fn mount(&self, mount: &pb::Mount) -> Option<Mount> {
        let option = mount.secret_opt.as_ref()?;
        let secret = self.0.get(&option.id)?;
        Some(Mount {
            destination: mount.dest.clone(),
            source: Source::Secret {
                contents: step::Secret(secret.expose().to_vec()),
                uid: option.uid,
                gid: option.gid,
                mode: option.mode,
            },
            read_only: true,
        })
    }

    /// The variables, as `NAME=value`.
    pub(super) fn variables(&self, op: &pb::ExecOp) -> Result<Vec<String>, OpError> {
        let mut variables = Vec::new();
        for variable in &op.secretenv {
            let Some(secret) = self.0.get(&variable.id) else {
                continue;
            };
            let text = secret
                .expose_text()
                .filter(|text| !text.contains('\0'))
                .ok_or_else(|| OpError::SecretText {
                    id: variable.id.clone(),
                })?;
            variables.push(format!("{}={text}", variable.name));
        }
        Ok(variables)
    }
}
