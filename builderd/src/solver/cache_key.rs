//! The identity of a step: its operation and what it starts from.
//!
//! The operation goes in without what does not change its result: digests of its inputs (the snapshots stand for
//! them), proxy settings and scheduling constraints. Keys never leave the machine; for caches that do, there are the
//! portable digests, which say nothing of the inputs.

use prost::Message;
use proto::pb;
use registry::Digest;

use crate::store::{CacheKey, Snapshot};

/// Raised when the meaning of an operation, and so the result of equal bytes, changes.
const VERSION: u32 = 1;

/// Marks the steps of a build whose network is the proxy: they see another world.
const PROXIED: &[u8] = b"\0proxied";

/// The key of an operation on the given inputs; `proxied` if it is a step with the proxy for its network.
pub fn of_operation(op: &pb::Op, proxied: bool, inputs: &[Snapshot]) -> CacheKey {
    let operation = operation(op, proxied);
    let inputs: Vec<Vec<u8>> = inputs.iter().map(layers).collect();
    CacheKey::new(
        "operation",
        [&VERSION.to_le_bytes()[..], &operation]
            .into_iter()
            .chain(inputs.iter().map(Vec::as_slice)),
    )
}

/// The digest of an operation, whatever its inputs: the same on every machine.
pub fn portable(op: &pb::Op, proxied: bool) -> Digest {
    Digest::of(&[&b"trimaran "[..], &VERSION.to_le_bytes(), &operation(op, proxied)].concat())
}

/// What of an operation counts, whatever its inputs.
pub fn operation(op: &pb::Op, proxied: bool) -> Vec<u8> {
    let mut op = op.clone();
    op.inputs.clear();
    op.constraints = None;
    if let Some(pb::op::Op::Exec(exec)) = &mut op.op
        && let Some(meta) = &mut exec.meta
    {
        meta.proxy_env = None;
    }
    let mut bytes = op.encode_to_vec();
    if proxied {
        bytes.extend_from_slice(PROXIED);
    }
    bytes
}

/// Layer ids hold no NUL, so ending each with one tells them apart.
fn layers(snapshot: &Snapshot) -> Vec<u8> {
    let mut bytes = Vec::new();
    for layer in snapshot.layers() {
        bytes.extend_from_slice(layer.as_str().as_bytes());
        bytes.push(0);
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::LayerId;

    fn exec(args: &[&str], http_proxy: &str) -> pb::Op {
        pb::Op {
            op: Some(pb::op::Op::Exec(pb::ExecOp {
                meta: Some(pb::Meta {
                    args: args.iter().map(|arg| (*arg).to_owned()).collect(),
                    proxy_env: Some(pb::ProxyEnv {
                        http_proxy: http_proxy.to_owned(),
                        ..Default::default()
                    }),
                    ..Default::default()
                }),
                ..Default::default()
            })),
            ..Default::default()
        }
    }

    #[test]
    fn proxies_do_not_change_the_key_but_arguments_and_inputs_do() {
        let one = [Snapshot::default().with(LayerId::new("one"))];
        let key = of_operation(&exec(&["true"], "a"), false, &one);
        assert_eq!(key, of_operation(&exec(&["true"], "b"), false, &one));
        assert_ne!(key, of_operation(&exec(&["false"], "a"), false, &one));
        assert_ne!(key, of_operation(&exec(&["true"], "a"), true, &one));
        assert_ne!(
            key,
            of_operation(&exec(&["true"], "a"), false, &[one[0].with(LayerId::new("two"))])
        );
        assert_ne!(
            key,
            of_operation(
                &exec(&["true"], "a"),
                false,
                &[one[0].clone(), Snapshot::default()]
            )
        );
        let split = [
            Snapshot::default().with(LayerId::new("on")),
            Snapshot::default().with(LayerId::new("e")),
        ];
        assert_ne!(
            of_operation(&exec(&[], ""), false, &one),
            of_operation(&exec(&[], ""), false, &split)
        );
    }
}
