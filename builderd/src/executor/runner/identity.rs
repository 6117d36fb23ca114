//! Who a step runs as: `user[:group]` by name or number, in the root's own passwd and group files, as Docker reads it.

use std::fs::OpenOptions;
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;

/// An image's passwd file is a few KiB; what is longer than this is not read to its end.
const FILE_LIMIT: u64 = 4 << 20;

#[derive(Debug, PartialEq, Eq)]
pub(super) struct Identity {
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) groups: Vec<u32>,
    pub(super) home: String,
}

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum IdentityError {
    #[error("unable to find user {0}: no matching entries in passwd file")]
    User(String),
    #[error("unable to find group {0}: no matching entries in group file")]
    Group(String),
}

/// Looks `spec` up in the files of the current root.
pub(super) fn find(spec: &str) -> Result<Identity, IdentityError> {
    resolve(spec, &read("/etc/passwd"), &read("/etc/group"))
}

/// Missing files have no entries; a fifo that an image put there must not block.
fn read(path: &str) -> String {
    let mut bytes = Vec::new();
    let read = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(path)
        .and_then(|file| {
            if file.metadata()?.is_file() {
                file.take(FILE_LIMIT).read_to_end(&mut bytes)
            } else {
                Err(io::Error::other("not a file"))
            }
        });
    match read {
        Ok(_) => String::from_utf8_lossy(&bytes).into_owned(),
        Err(_) => String::new(),
    }
}

fn resolve(spec: &str, passwd: &str, group: &str) -> Result<Identity, IdentityError> {
    let (user, wanted_group) = spec.split_once(':').unwrap_or((spec, ""));
    let user = if user.is_empty() { "0" } else { user };
    let number = user.parse::<u32>().ok();
    let entry = passwd
        .lines()
        .filter_map(User::parse)
        .find(|entry| entry.name == user || Some(entry.uid) == number);
    let mut identity = match (&entry, number) {
        (Some(entry), _) => Identity {
            uid: entry.uid,
            gid: entry.gid,
            groups: Vec::new(),
            home: entry.home.to_owned(),
        },
        (None, Some(uid)) => Identity {
            uid,
            gid: 0,
            groups: Vec::new(),
            home: String::new(),
        },
        (None, None) => return Err(IdentityError::User(user.to_owned())),
    };
    let groups = || group.lines().filter_map(Group::parse);
    if wanted_group.is_empty() {
        if let Some(entry) = &entry {
            identity.groups = groups()
                .filter(|group| group.has(entry.name))
                .map(|group| group.gid)
                .collect();
        }
    } else {
        let number = wanted_group.parse::<u32>().ok();
        identity.gid = groups()
            .find(|group| group.name == wanted_group || Some(group.gid) == number)
            .map(|group| group.gid)
            .or(number)
            .ok_or_else(|| IdentityError::Group(wanted_group.to_owned()))?;
    }
    // A process outside of its main group could reach what is barred to that group (CVE-2022-36109), so Docker puts
    // it into the list as well.
    identity.groups.retain(|group| *group != identity.gid);
    identity.groups.insert(0, identity.gid);
    if identity.home.is_empty() {
        identity.home = "/".into();
    }
    Ok(identity)
}

struct User<'a> {
    name: &'a str,
    uid: u32,
    gid: u32,
    home: &'a str,
}

impl<'a> User<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let mut fields = line.split(':');
        let name = fields.next()?;
        let uid = fields.nth(1)?.parse().ok()?;
        let gid = fields.next()?.parse().ok()?;
        Some(Self {
            name,
            uid,
            gid,
            home: fields.nth(1).unwrap_or_default(),
        })
    }
}

struct Group<'a> {
    name: &'a str,
    gid: u32,
    members: &'a str,
}

impl<'a> Group<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let mut fields = line.split(':');
        let name = fields.next()?;
        let gid = fields.nth(1)?.parse().ok()?;
        Some(Self {
            name,
            gid,
            members: fields.next().unwrap_or_default(),
        })
    }

    fn has(&self, user: &str) -> bool {
        self.members.split(',').any(|member| member == user)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str =
        "root:x:0:0:root:/root:/bin/sh\nbroken\napp:x:1000:1001:App:/srv/app:/bin/sh\n7:x:70:71::/seven:\n";
    const GROUP: &str = "root:x:0:root\nbin:x:1:root,app\nwheel:x:10:app,root\nstaff:x:50:\n";

    #[test]
    fn users_and_groups_are_found_as_docker_finds_them() {
        let identity = |uid, gid, groups: &[u32], home: &str| {
            Ok(Identity {
                uid,
                gid,
                groups: groups.to_vec(),
                home: home.into(),
            })
        };
        for (spec, expected) in [
            ("", identity(0, 0, &[0, 1, 10], "/root")),
            ("root", identity(0, 0, &[0, 1, 10], "/root")),
            ("0", identity(0, 0, &[0, 1, 10], "/root")),
            ("app", identity(1000, 1001, &[1001, 1, 10], "/srv/app")),
            ("1000", identity(1000, 1001, &[1001, 1, 10], "/srv/app")),
            ("app:staff", identity(1000, 50, &[50], "/srv/app")),
            ("app:50", identity(1000, 50, &[50], "/srv/app")),
            ("app:777", identity(1000, 777, &[777], "/srv/app")),
            ("12345", identity(12345, 0, &[0], "/")),
            ("12345:wheel", identity(12345, 10, &[10], "/")),
            (":wheel", identity(0, 10, &[10], "/root")),
            // A name that looks like a number comes first in the file, so it wins.
            ("7", identity(70, 71, &[71], "/seven")),
            ("nobody", Err(IdentityError::User("nobody".into()))),
            ("app:nogroup", Err(IdentityError::Group("nogroup".into()))),
            ("-1", Err(IdentityError::User("-1".into()))),
        ] {
            assert_eq!(resolve(spec, PASSWD, GROUP), expected, "{spec:?}");
        }
    }

    #[test]
    fn an_empty_root_knows_numbers_only() {
        assert_eq!(resolve("", "", "").map(|found| found.uid), Ok(0));
        assert_eq!(
            resolve("5:6", "", "").map(|found| (found.uid, found.gid)),
            Ok((5, 6))
        );
        assert!(resolve("app", "", "").is_err());
    }
}
