//! `RUN --mount=type=…,target=…`: comma separated fields, quoted as in CSV.

use crate::expand::ExpansionFailed;
use crate::suggest::{Case, hint};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MountKind {
    Bind,
    Cache,
    Tmpfs,
    Secret,
    Ssh,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CacheSharing {
    Shared,
    Private,
    Locked,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    pub kind: MountKind,
    /// A stage, an image or a named context; the build context if absent.
    pub from: Option<String>,
    pub source: String,
    pub target: String,
    pub read_only: bool,
    /// Of a tmpfs, in bytes; 0 means no limit.
    pub size: u64,
    pub id: Option<String>,
    pub sharing: Option<CacheSharing>,
    pub required: bool,
    /// Of a secret: also, or only, as this variable.
    pub environment: Option<String>,
    pub mode: Option<u32>,
    pub uid: Option<u32>,
    pub gid: Option<u32>,
}

#[derive(Debug, thiserror::Error, PartialEq, Eq, Clone)]
pub enum MountError {
    #[error("failed to parse csv mounts: bare or unclosed quote in {0:?}")]
    Csv(String),
    #[error("invalid field '{0}' must be a key=value pair")]
    NotAPair(String),
    #[error("unexpected key '{key}' in '{field}'{hint}")]
    UnknownKey {
        key: String,
        field: String,
        hint: String,
    },
    #[error("unexpected key '{key}' for mount type '{kind}'")]
    KeyForOtherKind { key: String, kind: &'static str },
    #[error("unsupported mount type {value:?}{hint}")]
    Kind { value: String, hint: String },
    #[error("unsupported sharing value {value:?}{hint}")]
    Sharing { value: String, hint: String },
    #[error("invalid value for {key}: {value}")]
    Value { key: String, value: String },
    #[error("{key} not allowed for {kind:?} type mounts")]
    OwnerNotAllowed { key: &'static str, kind: &'static str },
    #[error("secret mount should not have a from")]
    SecretFrom,
    #[error("invalid secret mount. one of source, target required")]
    SecretWithoutName,
    #[error("both source and id can't be set")]
    SecretTwice,
    #[error("invalid cache sharing set for {0} mount")]
    SharingNotAllowed(&'static str),
    #[error("'from' doesn't support variable expansion, define alias stage instead")]
    VariableFrom,
    #[error("{0}")]
    Expansion(ExpansionFailed),
}

const KINDS: [&str; 5] = ["bind", "cache", "tmpfs", "secret", "ssh"];
const SHARING: [&str; 3] = ["shared", "private", "locked"];
const KEYS: [&str; 19] = [
    "type",
    "from",
    "source",
    "target",
    "readonly",
    "id",
    "sharing",
    "required",
    "size",
    "mode",
    "uid",
    "gid",
    "src",
    "dst",
    "destination",
    "ro",
    "rw",
    "readwrite",
    "env",
];

impl MountKind {
    pub fn name(self) -> &'static str {
        KINDS[self as usize]
    }

    fn parse(value: &str) -> Result<Self, MountError> {
        Ok(match value.to_lowercase().as_str() {
            "bind" => Self::Bind,
            "cache" => Self::Cache,
            "tmpfs" => Self::Tmpfs,
            "secret" => Self::Secret,
            "ssh" => Self::Ssh,
            _ => {
                let hint = hint(value, KINDS, Case::Sensitive);
                return Err(MountError::Kind {
                    value: value.to_owned(),
                    hint,
                });
            }
        })
    }
}

impl CacheSharing {
    fn parse(value: &str) -> Result<Self, MountError> {
        Ok(match value.to_lowercase().as_str() {
            "shared" => Self::Shared,
            "private" => Self::Private,
            "locked" => Self::Locked,
            _ => {
                let hint = hint(value, SHARING, Case::Sensitive);
                return Err(MountError::Sharing {
                    value: value.to_owned(),
                    hint,
                });
            }
        })
    }
}

impl Mount {
    /// The `from` of a mount, which is needed before any variable has a value and so may not name one.
    pub fn source_stage(text: &str) -> Result<Option<String>, MountError> {
        let mut from = None;
        for field in fields(text)? {
            if let Some((key, value)) = field.split_once('=')
                && key.eq_ignore_ascii_case("from")
            {
                if value.find('$').is_some_and(|at| at + 1 < value.len()) {
                    return Err(MountError::VariableFrom);
                }
                from = Some(value.to_owned()).filter(|from| !from.is_empty());
            }
        }
        Ok(from)
    }

    /// Reads a mount; `expand` gives variables in values their values.
    pub fn parse(
        text: &str,
        expand: impl Fn(&str) -> Result<String, ExpansionFailed>,
    ) -> Result<Self, MountError> {
        let mut mount = Self {
            kind: MountKind::Bind,
            from: None,
            source: String::new(),
            target: String::new(),
            read_only: true,
            size: 0,
            id: None,
            sharing: None,
            required: false,
            environment: None,
            mode: None,
            uid: None,
            gid: None,
        };
        let mut read_only = None;
        for field in fields(text)? {
            let (key, value) = match field.split_once('=') {
                Some((key, value)) => (key.to_lowercase(), expand(value).map_err(MountError::Expansion)?),
                None => match field.to_lowercase() {
                    key if matches!(key.as_str(), "readonly" | "ro" | "readwrite" | "rw" | "required") => {
                        (key, "true".to_owned())
                    }
                    _ => return Err(MountError::NotAPair(field)),
                },
            };
            mount.set(&key, value, &field, &mut read_only)?;
        }
        mount.read_only = read_only.unwrap_or(!matches!(mount.kind, MountKind::Cache | MountKind::Tmpfs));
        mount.check()?;
        Ok(mount)
    }

    fn set(
        &mut self,
        key: &str,
        value: String,
        field: &str,
        read_only: &mut Option<bool>,
    ) -> Result<(), MountError> {
        let only_for = |kinds: &[MountKind]| {
            if kinds.contains(&self.kind) {
                return Ok(());
            }
            Err(MountError::KeyForOtherKind {
                key: key.to_owned(),
                kind: self.kind.name(),
            })
        };
        match key {
            "type" => self.kind = MountKind::parse(&value)?,
            "from" => self.from = Some(value).filter(|value| !value.is_empty()),
            "source" | "src" => self.source = value,
            "target" | "dst" | "destination" => self.target = value,
            "readonly" | "ro" => *read_only = Some(boolean(key, &value)?),
            "readwrite" | "rw" => *read_only = Some(!boolean(key, &value)?),
            "required" => {
                only_for(&[MountKind::Secret, MountKind::Ssh])?;
                self.required = boolean(key, &value)?;
            }
            "size" => {
                only_for(&[MountKind::Tmpfs])?;
                self.size = bytes(&value).ok_or_else(|| invalid(key, &value))?;
            }
            "id" => self.id = Some(value).filter(|value| !value.is_empty()),
            "sharing" => self.sharing = Some(CacheSharing::parse(&value)?),
            "mode" => self.mode = Some(u32::from_str_radix(&value, 8).map_err(|_| invalid(key, &value))?),
            "uid" => self.uid = Some(value.parse().map_err(|_| invalid(key, &value))?),
            "gid" => self.gid = Some(value.parse().map_err(|_| invalid(key, &value))?),
            "env" => self.environment = Some(value),
            _ => {
                let hint = hint(key, KEYS, Case::Sensitive);
                return Err(MountError::UnknownKey {
                    key: key.to_owned(),
                    field: field.to_owned(),
                    hint,
                });
            }
        }
        Ok(())
    }

    fn check(&self) -> Result<(), MountError> {
        let kind = self.kind.name();
        if matches!(self.kind, MountKind::Bind | MountKind::Tmpfs) {
            for (key, value) in [("mode", self.mode), ("uid", self.uid), ("gid", self.gid)] {
                if value.is_some() {
                    return Err(MountError::OwnerNotAllowed { key, kind });
                }
            }
        }
        if self.kind == MountKind::Secret {
            if self.from.is_some() {
                return Err(MountError::SecretFrom);
            }
            if self.source.is_empty() && self.target.is_empty() && self.id.is_none() {
                return Err(MountError::SecretWithoutName);
            }
            if !self.source.is_empty() && self.id.is_some() {
                return Err(MountError::SecretTwice);
            }
        }
        if self.sharing.is_some() && self.kind != MountKind::Cache {
            return Err(MountError::SharingNotAllowed(kind));
        }
        Ok(())
    }
}

fn invalid(key: &str, value: &str) -> MountError {
    MountError::Value {
        key: key.to_owned(),
        value: value.to_owned(),
    }
}

fn boolean(key: &str, value: &str) -> Result<bool, MountError> {
    match value {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err(invalid(key, value)),
    }
}

/// `64m`, `1.5GiB`, `1024`: powers of 1024 whatever the spelling.
fn bytes(text: &str) -> Option<u64> {
    let split = text
        .find(|ch: char| !ch.is_ascii_digit() && ch != '.')
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let power = match unit.trim_start().to_lowercase().as_str() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 1,
        "m" | "mb" | "mib" => 2,
        "g" | "gb" | "gib" => 3,
        "t" | "tb" | "tib" => 4,
        "p" | "pb" | "pib" => 5,
        _ => return None,
    };
    let bytes = number.parse::<f64>().ok()? * 1024f64.powi(power);
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "the range is checked here"
    )]
    (bytes < 9.2e18).then_some(bytes as u64)
}

/// The fields of one CSV record. A field may be quoted as a whole, `""` in it is a quote.
fn fields(text: &str) -> Result<Vec<String>, MountError> {
    let malformed = || MountError::Csv(text.to_owned());
    let mut fields = Vec::new();
    let mut chars = text.chars().peekable();
    loop {
        let mut field = String::new();
        if chars.next_if_eq(&'"').is_some() {
            loop {
                match chars.next() {
                    Some('"') if chars.next_if_eq(&'"').is_some() => field.push('"'),
                    Some('"') => break,
                    Some(ch) => field.push(ch),
                    None => return Err(malformed()),
                }
            }
        } else {
            while let Some(ch) = chars.next_if(|ch| *ch != ',') {
                if ch == '"' {
                    return Err(malformed());
                }
                field.push(ch);
            }
        }
        fields.push(field);
        match chars.next() {
            None => return Ok(fields),
            Some(',') => {}
            Some(_) => return Err(malformed()),
        }
    }
}
