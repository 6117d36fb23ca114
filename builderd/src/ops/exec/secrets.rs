//! What a step is told in confidence: files and variables that exist only while it runs and leave no trace.

use std::collections::BTreeMap;

use proto::pb;

use crate::executor::step::{Mount, Secret, Source};
use crate::ops::OpError;

/// The secrets of a step, by their ids, as far as they are there.
#[derive(Debug, Default)]
pub struct Secrets(BTreeMap<String, Secret>);

impl Secrets {
    pub fn new(found: BTreeMap<String, Secret>) -> Self {
        Self(found)
    }

    /// The secrets that an operation names, and whether it can do without.
    pub fn named(op: &pb::ExecOp) -> impl Iterator<Item = (&str, bool)> {
        let of_files = op.mounts.iter().filter_map(|mount| {
            let option = mount.secret_opt.as_ref()?;
            Some((option.id.as_str(), option.optional))
        });
        let of_variables = op
            .secretenv
            .iter()
            .map(|variable| (variable.id.as_str(), variable.optional));
        of_files.chain(of_variables)
    }

    /// The mount of a secret; none if it is optional and not there.
    pub(super) fn mount(&self, mount: &pb::Mount) -> Option<Mount> {
        let option = mount.secret_opt.as_ref()?;
        let secret = self.0.get(&option.id)?;
        Some(Mount {
            destination: mount.dest.clone(),
            source: Source::Secret {
                contents: secret.clone(),
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
            let text = std::str::from_utf8(&secret.0)
                .ok()
                .filter(|text| !text.contains('\0'))
                .ok_or_else(|| OpError::SecretText {
                    id: variable.id.clone(),
                })?;
            variables.push(format!("{}={text}", variable.name));
        }
        Ok(variables)
    }
}
