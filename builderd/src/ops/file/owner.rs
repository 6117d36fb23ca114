//! Who shall own what an action makes: ids, or names looked up in the passwd and group files of a view.

use std::io::{BufRead as _, BufReader, Read as _};

use proto::pb;
use proto::pb::file_action::Action;
use proto::pb::user_opt::User;

use super::Problem;
use crate::store::view::{View, ViewError};

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Owner {
    pub uid: u32,
    pub gid: u32,
}

/// More is not read of a passwd or group file.
const MAX_BYTES: u64 = 10 << 20;

pub fn of(action: &pb::FileAction) -> Option<&pb::ChownOpt> {
    match action.action.as_ref()? {
        Action::Copy(copy) => copy.owner.as_ref(),
        Action::Mkfile(mkfile) => mkfile.owner.as_ref(),
        Action::Mkdir(mkdir) => mkdir.owner.as_ref(),
        Action::Symlink(symlink) => symlink.owner.as_ref(),
        Action::Rm(_) => None,
    }
}

/// The inputs in whose files an action looks up names.
pub fn inputs(action: &pb::FileAction) -> Vec<i64> {
    let Some(owner) = of(action) else {
        return Vec::new();
    };
    [&owner.user, &owner.group]
        .into_iter()
        .filter_map(|option| named(option))
        .map(|(_, index)| index)
        .collect()
}

fn named(option: &Option<pb::UserOpt>) -> Option<(&str, i64)> {
    match option.as_ref()?.user.as_ref()? {
        User::ByName(named) => Some((&named.name, named.input)),
        User::ById(_) => None,
    }
}

fn by_id(option: &Option<pb::UserOpt>) -> Option<u32> {
    match option.as_ref()?.user.as_ref()? {
        User::ById(id) => Some(*id),
        User::ByName(_) => None,
    }
}

/// `view` gives the file system with an index. A name that is not in the files, or a file that is not there, means
/// root, as in BuildKit.
pub fn resolve(owner: &pb::ChownOpt, view: impl Fn(i64) -> Result<View, Problem>) -> Result<Owner, Problem> {
    let lookup = |name: &str, index: i64, file: &str| {
        if index < 0 {
            return Err(Problem::OwnerWithoutInput {
                name: name.to_owned(),
            });
        }
        Ok(find(&view(index)?, file, name)?)
    };
    let mut resolved = Owner::default();
    if let Some(id) = by_id(&owner.user) {
        resolved = Owner { uid: id, gid: id };
    } else if let Some((name, index)) = named(&owner.user)
        && let Some(fields) = lookup(name, index, "/etc/passwd")?
    {
        resolved = Owner {
            uid: number(fields.get(2)),
            gid: number(fields.get(3)),
        };
    }
    if let Some(id) = by_id(&owner.group) {
        resolved.gid = id;
    } else if let Some((name, index)) = named(&owner.group)
        && let Some(fields) = lookup(name, index, "/etc/group")?
    {
        resolved.gid = number(fields.get(2));
    }
    Ok(resolved)
}

fn number(field: Option<&String>) -> u32 {
    field.and_then(|field| field.trim().parse().ok()).unwrap_or(0)
}

/// The fields of the first line of a passwd-like file whose first field is `name`.
fn find(view: &View, path: &str, name: &str) -> Result<Option<Vec<String>>, ViewError> {
    let file = match view.open_file(path) {
        Ok(file) => file,
        Err(ViewError::NotFound { .. } | ViewError::NotADirectory { .. }) => return Ok(None),
        Err(error) => return Err(error),
    };
    for line in BufReader::new(file.take(MAX_BYTES)).split(b'\n') {
        let line = line.map_err(|source| ViewError::Read {
            path: path.into(),
            source,
        })?;
        let line = String::from_utf8_lossy(&line);
        let mut fields = line.trim().split(':');
        if fields.next() == Some(name) {
            return Ok(Some(line.trim().split(':').map(str::to_owned).collect()));
        }
    }
    Ok(None)
}
