//! Entries to header blocks. A PAX header is written only for values that ustar cannot hold, as Go's archive writer
//! does when asked for PAX: most entries are then one block, and old readers understand them.

use super::{BLOCK, Entry, Kind, Time, XATTR};

const NAME: usize = 100;
const PREFIX: usize = 155;
/// What seven octal digits hold.
const MAX_7: u64 = 0o7_777_777;
/// What eleven octal digits hold.
const MAX_11: u64 = 0o77_777_777_777;

/// Appends the header blocks of `entry`; its data and their [`padding`] follow.
pub(crate) fn push_header(out: &mut Vec<u8>, entry: &Entry) {
    let (flag, size, link, device) = match &entry.kind {
        Kind::File { size } => (b'0', *size, &[][..], (0, 0)),
        Kind::HardLink { target } => (b'1', 0, target.as_slice(), (0, 0)),
        Kind::Symlink { target } => (b'2', 0, target.as_slice(), (0, 0)),
        Kind::Character { major, minor } => (b'3', 0, &[][..], (*major, *minor)),
        Kind::Block { major, minor } => (b'4', 0, &[][..], (*major, *minor)),
        Kind::Folder => (b'5', 0, &[][..], (0, 0)),
        Kind::Fifo => (b'6', 0, &[][..], (0, 0)),
    };
    let mut pax = Pax::default();
    for (name, value) in &entry.xattrs {
        pax.push(&[XATTR, name].concat(), value);
    }
    // The keys below follow the xattrs' in byte order, so the records are sorted.
    let number = |pax: &mut Pax, key: &[u8], value: u64, max: u64| {
        if value > max {
            pax.push(key, value.to_string().as_bytes());
            return 0;
        }
        value
    };
    let gid = number(&mut pax, b"gid", entry.gid.into(), MAX_7);
    if !fits(link, NAME) {
        pax.push(b"linkpath", link);
    }
    let mtime = match u64::try_from(entry.mtime.seconds) {
        Ok(seconds) if seconds <= MAX_11 && entry.mtime.nanoseconds == 0 => seconds,
        rounded => {
            pax.push(b"mtime", decimal(entry.mtime).as_bytes());
            rounded.ok().filter(|seconds| *seconds <= MAX_11).unwrap_or(0)
        }
    };
    let (prefix, name) = split(&entry.path).unwrap_or_else(|| {
        pax.push(b"path", &entry.path);
        (&[], &entry.path)
    });
    let size = number(&mut pax, b"size", size, MAX_11);
    let uid = number(&mut pax, b"uid", entry.uid.into(), MAX_7);
    if !pax.records.is_empty() {
        let name = pax_name(&entry.path);
        push_block(
            out,
            &Fields {
                flag: b'x',
                size: pax.records.len() as u64,
                ..Fields::new(&name)
            },
        );
        out.extend_from_slice(&pax.records);
        out.resize(out.len() + padding(pax.records.len() as u64), 0);
    }
    push_block(
        out,
        &Fields {
            flag,
            prefix,
            name,
            link,
            device,
            uid,
            gid,
            size,
            mtime,
            mode: entry.mode.into(),
        },
    );
}

/// Number of zero bytes that follow `size` bytes of data.
pub(crate) fn padding(size: u64) -> usize {
    let over = usize::try_from(size % BLOCK as u64).expect("less than a block");
    if over == 0 { 0 } else { BLOCK - over }
}

/// What an archive ends with.
pub(crate) fn end_of_archive() -> &'static [u8] {
    &[0; 2 * BLOCK]
}

struct Fields<'a> {
    flag: u8,
    prefix: &'a [u8],
    name: &'a [u8],
    link: &'a [u8],
    mode: u64,
    uid: u64,
    gid: u64,
    size: u64,
    mtime: u64,
    device: (u32, u32),
}

impl<'a> Fields<'a> {
    fn new(name: &'a [u8]) -> Self {
        Self {
            flag: 0,
            prefix: &[],
            name,
            link: &[],
            mode: 0,
            uid: 0,
            gid: 0,
            size: 0,
            mtime: 0,
            device: (0, 0),
        }
    }
}

fn push_block(out: &mut Vec<u8>, fields: &Fields<'_>) {
    let start = out.len();
    push_text(out, fields.name, NAME);
    push_octal(out, fields.mode, 8);
    push_octal(out, fields.uid, 8);
    push_octal(out, fields.gid, 8);
    push_octal(out, fields.size, 12);
    push_octal(out, fields.mtime, 12);
    let checksum = out.len();
    out.extend_from_slice(b"        ");
    out.push(fields.flag);
    push_text(out, fields.link, NAME);
    out.extend_from_slice(b"ustar\x0000");
    push_text(out, &[], 32 + 32);
    push_octal(out, fields.device.0.into(), 8);
    push_octal(out, fields.device.1.into(), 8);
    push_text(out, fields.prefix, PREFIX);
    out.resize(start + BLOCK, 0);
    let sum: u64 = out.iter().skip(start).map(|byte| u64::from(*byte)).sum();
    let text = format!("{sum:06o}\0 ");
    out.splice(checksum..checksum + text.len(), text.bytes());
}

/// A text field: what does not fit stands in a PAX record, and readers that know none get its beginning.
fn push_text(out: &mut Vec<u8>, text: &[u8], width: usize) {
    let end = out.len() + width;
    out.extend(text.iter().take(width));
    out.resize(end, 0);
}

fn push_octal(out: &mut Vec<u8>, value: u64, width: usize) {
    out.extend_from_slice(format!("{value:0digits$o}\0", digits = width - 1).as_bytes());
}

fn fits(text: &[u8], width: usize) -> bool {
    text.len() <= width && plain(text)
}

/// ustar's character set is ASCII; anything else needs PAX.
fn plain(text: &[u8]) -> bool {
    text.iter().all(|byte| byte.is_ascii() && *byte != 0)
}

/// Prefix and name of a path that fits into a ustar header: cut at the last slash that leaves both short enough.
fn split(path: &[u8]) -> Option<(&[u8], &[u8])> {
    if fits(path, NAME) {
        return Some((&[], path));
    }
    if !plain(path) {
        return None;
    }
    // A trailing slash belongs to the name.
    let searched = path.get(..path.len().saturating_sub(1).min(PREFIX + 1))?;
    let cut = searched
        .iter()
        .rposition(|byte| *byte == b'/')
        .filter(|cut| *cut > 0)?;
    let (prefix, name) = (path.get(..cut)?, path.get(cut + 1..)?);
    (name.len() <= NAME && !name.is_empty()).then_some((prefix, name))
}

/// The name under which readers without PAX would extract the records.
fn pax_name(path: &[u8]) -> Vec<u8> {
    let path = path.strip_suffix(b"/").unwrap_or(path);
    let cut = path
        .iter()
        .rposition(|byte| *byte == b'/')
        .map_or(0, |slash| slash + 1);
    let (folder, name) = path.split_at(cut);
    let mut text = [folder, b"PaxHeaders.0/", name].concat();
    text.retain(u8::is_ascii);
    text.truncate(NAME);
    text
}

fn decimal(time: Time) -> String {
    let Time { seconds, nanoseconds } = time;
    if nanoseconds == 0 {
        return seconds.to_string();
    }
    // The fraction counts forward, the text counts away from zero.
    let (sign, seconds, nanoseconds) = if seconds < 0 {
        ("-", -(i128::from(seconds) + 1), 1_000_000_000 - nanoseconds)
    } else {
        ("", i128::from(seconds), nanoseconds)
    };
    let fraction = format!("{nanoseconds:09}");
    format!("{sign}{seconds}.{}", fraction.trim_end_matches('0'))
}

/// PAX records: `length key=value\n`, where the length counts its own digits.
#[derive(Default)]
struct Pax {
    records: Vec<u8>,
}

impl Pax {
    fn push(&mut self, key: &[u8], value: &[u8]) {
        let rest = key.len() + value.len() + 3;
        let mut length = rest + digits(rest);
        if digits(length) > digits(rest) {
            length = rest + digits(length);
        }
        self.records.extend_from_slice(length.to_string().as_bytes());
        self.records.push(b' ');
        self.records.extend_from_slice(key);
        self.records.push(b'=');
        self.records.extend_from_slice(value);
        self.records.push(b'\n');
    }
}

fn digits(number: usize) -> usize {
    number.to_string().len()
}
