//! How the fields of operations look in JSON, as Go's encoder writes them.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Serialize, Serializer};

/// Empty fields are left out.
pub(crate) fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

pub(crate) fn bytes<S: Serializer>(bytes: &bytes::Bytes, serializer: S) -> Result<S::Ok, S::Error> {
    STANDARD.encode(bytes).serialize(serializer)
}

pub(crate) fn several_bytes<S: Serializer>(
    several: &[bytes::Bytes],
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(several.iter().map(|bytes| STANDARD.encode(bytes)))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::pb;

    #[test]
    fn operations_are_told_by_the_names_of_their_fields() {
        let op = pb::Op {
            op: Some(pb::op::Op::File(pb::FileOp {
                actions: vec![pb::FileAction {
                    input: 1,
                    secondary_input: -1,
                    action: Some(pb::file_action::Action::Mkfile(pb::FileActionMkFile {
                        path: "/a".to_owned(),
                        data: "hi".into(),
                        owner: Some(pb::ChownOpt {
                            user: Some(pb::UserOpt {
                                user: Some(pb::user_opt::User::ById(7)),
                            }),
                            group: None,
                        }),
                        ..pb::FileActionMkFile::default()
                    })),
                    ..pb::FileAction::default()
                }],
            })),
            platform: Some(pb::Platform {
                os: "linux".to_owned(),
                ..pb::Platform::default()
            }),
            ..pb::Op::default()
        };
        assert_eq!(
            serde_json::to_value(&op).unwrap(),
            json!({
                "Op": { "file": { "actions": [{
                    "input": 1,
                    "secondaryInput": -1,
                    "Action": { "mkfile": {
                        "path": "/a",
                        "data": "aGk=",
                        "owner": { "user": { "User": { "byId": 7 } } },
                    } },
                }] } },
                "platform": { "OS": "linux" },
            })
        );
    }
}
