//! File modes on the wire are Go's `FileMode` bits; here they become those of `stat(2)` and back.

const DIRECTORY: u32 = 1 << 31;
const SYMLINK: u32 = 1 << 27;
const DEVICE: u32 = 1 << 26;
const FIFO: u32 = 1 << 25;
const SOCKET: u32 = 1 << 24;
const SETUID: u32 = 1 << 23;
const SETGID: u32 = 1 << 22;
const CHARACTER: u32 = 1 << 21;
const STICKY: u32 = 1 << 20;
const IRREGULAR: u32 = 1 << 19;

const S_IFMT: u32 = 0o170_000;
const S_IFSOCK: u32 = 0o140_000;
const S_IFLNK: u32 = 0o120_000;
const S_IFREG: u32 = 0o100_000;
const S_IFBLK: u32 = 0o060_000;
const S_IFDIR: u32 = 0o040_000;
const S_IFCHR: u32 = 0o020_000;
const S_IFIFO: u32 = 0o010_000;
const S_ISUID: u32 = 0o4000;
const S_ISGID: u32 = 0o2000;
const S_ISVTX: u32 = 0o1000;

/// What an entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    File,
    Directory,
    Symlink,
    Fifo,
    CharDevice,
    BlockDevice,
    Socket,
}

impl Kind {
    /// The kind in a mode from the wire; `None` for irregular files and contradictory bits.
    pub fn of(wire: u32) -> Option<Self> {
        match wire & (DIRECTORY | SYMLINK | DEVICE | FIFO | SOCKET | CHARACTER | IRREGULAR) {
            0 => Some(Self::File),
            DIRECTORY => Some(Self::Directory),
            SYMLINK => Some(Self::Symlink),
            FIFO => Some(Self::Fifo),
            SOCKET => Some(Self::Socket),
            DEVICE => Some(Self::BlockDevice),
            bits if bits == DEVICE | CHARACTER => Some(Self::CharDevice),
            _ => None,
        }
    }

    fn format(self) -> u32 {
        match self {
            Self::File => S_IFREG,
            Self::Directory => S_IFDIR,
            Self::Symlink => S_IFLNK,
            Self::Fifo => S_IFIFO,
            Self::CharDevice => S_IFCHR,
            Self::BlockDevice => S_IFBLK,
            Self::Socket => S_IFSOCK,
        }
    }
}

/// Permissions with the set-id and sticky bits where `chmod(2)` has them, from a mode of the wire.
pub fn permissions(wire: u32) -> u32 {
    let bit = |from, to| if wire & from == 0 { 0 } else { to };
    wire & 0o777 | bit(SETUID, S_ISUID) | bit(SETGID, S_ISGID) | bit(STICKY, S_ISVTX)
}

/// `st_mode` for a mode of the wire; `None` where [`Kind::of`] knows no kind.
pub fn to_stat(wire: u32) -> Option<u32> {
    Some(Kind::of(wire)?.format() | permissions(wire))
}

/// The mode of the wire for an `st_mode`. Unknown formats become irregular files.
pub fn from_stat(mode: u32) -> u32 {
    let kind = match mode & S_IFMT {
        S_IFREG => 0,
        S_IFDIR => DIRECTORY,
        S_IFLNK => SYMLINK,
        S_IFIFO => FIFO,
        S_IFSOCK => SOCKET,
        S_IFBLK => DEVICE,
        S_IFCHR => DEVICE | CHARACTER,
        _ => IRREGULAR,
    };
    let bit = |from, to| if mode & from == 0 { 0 } else { to };
    kind | mode & 0o777 | bit(S_ISUID, SETUID) | bit(S_ISGID, SETGID) | bit(S_ISVTX, STICKY)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn modes_are_those_seen_on_the_wire() {
        for (stat, wire, kind) in [
            (0o040_755, 0x8000_01ed, Kind::Directory),
            (0o104_755, 0x0080_01ed, Kind::File),
            (0o120_777, 0x0800_01ff, Kind::Symlink),
            (0o010_644, 0x0200_01a4, Kind::Fifo),
            (0o020_600, 0x0420_0180, Kind::CharDevice),
            (0o060_600, 0x0400_0180, Kind::BlockDevice),
            (0o041_777, 0x8010_01ff, Kind::Directory),
        ] {
            assert_eq!(from_stat(stat), wire, "{stat:o}");
            assert_eq!(to_stat(wire), Some(stat), "{wire:x}");
            assert_eq!(Kind::of(wire), Some(kind), "{wire:x}");
        }
    }

    #[test]
    fn contradictory_and_irregular_modes_have_no_kind() {
        for wire in [
            DIRECTORY | SYMLINK,
            IRREGULAR,
            CHARACTER,
            DEVICE | FIFO,
            DIRECTORY | DEVICE | CHARACTER,
        ] {
            assert_eq!(Kind::of(wire | 0o644), None, "{wire:x}");
            assert_eq!(to_stat(wire | 0o644), None, "{wire:x}");
        }
    }

    proptest! {
        #[test]
        fn every_mode_comes_back(
            format in prop::sample::select(&[S_IFSOCK, S_IFLNK, S_IFREG, S_IFBLK, S_IFDIR, S_IFCHR, S_IFIFO][..]),
            permissions in 0_u32..=0o7777,
        ) {
            let mode = format | permissions;
            prop_assert_eq!(to_stat(from_stat(mode)), Some(mode));
            prop_assert_eq!(super::permissions(from_stat(mode)), permissions);
        }
    }
}
