//! Header blocks to entries, for archives from anywhere: every number is checked and every text bounded before it is
//! kept. Data is read through the archive, between two entries.

use std::io::{self, Read};

use super::{BLOCK, Entry, Kind, Time, XATTR, Xattrs};

/// Bound of all headers before that of one entry: PAX records and GNU long names. Go's reader bounds each by this.
const EXTENSION_LIMIT: u64 = 1 << 20;

#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    #[error("cannot read the archive")]
    Read(#[source] io::Error),
    #[error("the archive ends in the middle of an entry")]
    Truncated,
    #[error("damaged tar header at byte {at}: {what}")]
    Header { at: u64, what: &'static str },
    #[error("tar entry {path:?} is a sparse file, which image layers cannot hold; pack it without --sparse")]
    Sparse { path: String },
    #[error("tar entry {path:?} has unknown type {flag:?}")]
    Type { path: String, flag: char },
}

/// Reads entry after entry; `Read` gives the data of the entry that came last.
pub struct Archive<R> {
    inner: R,
    position: u64,
    /// Data bytes of the current entry that were not read yet.
    data: u64,
    padding: u64,
    ended: bool,
}

/// Values from extension headers, which win over those of the header.
#[derive(Default)]
struct Extensions {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    size: Option<u64>,
    uid: Option<u64>,
    gid: Option<u64>,
    mtime: Option<Time>,
    xattrs: Xattrs,
    sparse: bool,
}

impl<R: Read> Archive<R> {
    pub fn new(inner: R) -> Self {
        Self {
            inner,
            position: 0,
            data: 0,
            padding: 0,
            ended: false,
        }
    }

    pub fn into_inner(self) -> R {
        self.inner
    }

    pub fn next_entry(&mut self) -> Result<Option<Entry>, ArchiveError> {
        let mut extensions = Extensions::default();
        let mut extended = 0;
        loop {
            self.skip_data()?;
            let Some(block) = self.next_block()? else {
                return Ok(None);
            };
            let at = self.position - BLOCK as u64;
            let header = Header { block: &block, at };
            header.verify()?;
            let flag = header.flag();
            if matches!(flag, b'x' | b'X' | b'L' | b'K' | b'g') {
                // Of global records, which are skipped, the number alone counts.
                let read = if flag == b'g' { 0 } else { header.size()? };
                extended = read.saturating_add(extended).saturating_add(BLOCK as u64);
                if extended > EXTENSION_LIMIT {
                    return Err(ArchiveError::Header {
                        at,
                        what: "extension headers of an entry over one MiB",
                    });
                }
            }
            match flag {
                b'x' | b'X' => {
                    let records = self.read_extension(&header)?;
                    extensions.add_records(&records).ok_or(ArchiveError::Header {
                        at,
                        what: "PAX records",
                    })?;
                }
                b'L' => extensions.path = Some(until_nul(&self.read_extension(&header)?).to_vec()),
                b'K' => extensions.link = Some(until_nul(&self.read_extension(&header)?).to_vec()),
                // Records for all entries, as git puts the commit there: no value of them concerns files.
                b'g' => self.expect_data(header.size()?),
                _ => return self.entry(&header, flag, extensions).map(Some),
            }
        }
    }

    fn entry(
        &mut self,
        header: &Header<'_>,
        flag: u8,
        extensions: Extensions,
    ) -> Result<Entry, ArchiveError> {
        let wrong = |what| ArchiveError::Header { at: header.at, what };
        let path = extensions.path.unwrap_or_else(|| header.path());
        let printable = || String::from_utf8_lossy(&path).into_owned();
        let target = || {
            extensions
                .link
                .clone()
                .unwrap_or_else(|| until_nul(header.field(157, 100)).to_vec())
        };
        let device = || {
            let part = |start, what| {
                let number = header.number(start, 8).ok_or(wrong(what))?;
                u32::try_from(number).map_err(|_| wrong(what))
            };
            Ok((part(329, "device number")?, part(337, "device number")?))
        };
        let kind = match flag {
            b'S' => return Err(ArchiveError::Sparse { path: printable() }),
            _ if extensions.sparse => return Err(ArchiveError::Sparse { path: printable() }),
            // Before ustar, folders were files with a slash at the end.
            b'\0' if path.ends_with(b"/") => Kind::Folder,
            b'0' | b'\0' | b'7' => {
                let size = extensions.size.map_or_else(|| header.size(), Ok)?;
                self.expect_data(size);
                Kind::File { size }
            }
            b'1' => Kind::HardLink { target: target() },
            b'2' => Kind::Symlink { target: target() },
            b'3' => device().map(|(major, minor)| Kind::Character { major, minor })?,
            b'4' => device().map(|(major, minor)| Kind::Block { major, minor })?,
            b'5' => Kind::Folder,
            b'6' => Kind::Fifo,
            other => {
                return Err(ArchiveError::Type {
                    path: printable(),
                    flag: other.into(),
                });
            }
        };
        let id = |extension: Option<u64>, start, what| {
            let number = match extension {
                Some(number) => number,
                None => header.unsigned(start, 8).ok_or(wrong(what))?,
            };
            u32::try_from(number).map_err(|_| wrong(what))
        };
        let mtime = match extensions.mtime {
            Some(time) => time,
            None => Time {
                seconds: header.number(136, 12).ok_or(wrong("mtime"))?,
                nanoseconds: 0,
            },
        };
        let mode = header.unsigned(100, 8).ok_or(wrong("mode"))? & 0o7777;
        Ok(Entry {
            kind,
            mode: u32::try_from(mode).map_err(|_| wrong("mode"))?,
            uid: id(extensions.uid, 108, "uid")?,
            gid: id(extensions.gid, 116, "gid")?,
            mtime,
            xattrs: extensions.xattrs,
            path,
        })
    }

    fn expect_data(&mut self, size: u64) {
        self.data = size;
        self.padding = super::padding(size) as u64;
    }

    fn skip_data(&mut self) -> Result<(), ArchiveError> {
        let rest = self.data.saturating_add(self.padding);
        let skipped =
            io::copy(&mut self.inner.by_ref().take(rest), &mut io::sink()).map_err(ArchiveError::Read)?;
        // The padding of the last entry may be missing, as some writers leave out the end of the archive.
        if skipped < self.data {
            return Err(ArchiveError::Truncated);
        }
        self.position = self.position.saturating_add(skipped);
        (self.data, self.padding) = (0, 0);
        Ok(())
    }

    /// The next header block; `None` at the end, which is a block of zeros or nothing.
    fn next_block(&mut self) -> Result<Option<[u8; BLOCK]>, ArchiveError> {
        let mut block = [0; BLOCK];
        let mut filled = 0;
        while let Some(rest) = block
            .get_mut(filled..)
            .filter(|rest| !rest.is_empty() && !self.ended)
        {
            match self.inner.read(rest) {
                Ok(0) if filled == 0 => self.ended = true,
                Ok(0) => return Err(ArchiveError::Truncated),
                Ok(read) => filled += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(ArchiveError::Read(error)),
            }
        }
        self.position = self.position.saturating_add(BLOCK as u64);
        self.ended |= block.iter().all(|byte| *byte == 0);
        Ok((!self.ended).then_some(block))
    }

    fn read_extension(&mut self, header: &Header<'_>) -> Result<Vec<u8>, ArchiveError> {
        let size = header.size()?;
        self.expect_data(size);
        let mut bytes = Vec::new();
        self.read_to_end(&mut bytes).map_err(ArchiveError::Read)?;
        if bytes.len() as u64 != size {
            return Err(ArchiveError::Truncated);
        }
        Ok(bytes)
    }
}

impl<R: Read> Read for Archive<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.by_ref().take(self.data).read(buffer)?;
        self.data -= read as u64;
        self.position = self.position.saturating_add(read as u64);
        Ok(read)
    }
}

impl Extensions {
    /// `None` if they are malformed.
    fn add_records(&mut self, mut records: &[u8]) -> Option<()> {
        while !records.is_empty() {
            let space = records.iter().take(20).position(|byte| *byte == b' ')?;
            let length: usize = std::str::from_utf8(records.get(..space)?).ok()?.parse().ok()?;
            let (record, rest) = (records.get(space + 1..length)?, records.get(length..)?);
            let record = record.strip_suffix(b"\n")?;
            let equals = record.iter().position(|byte| *byte == b'=')?;
            self.add_record(record.get(..equals)?, record.get(equals + 1..)?)?;
            records = rest;
        }
        // Of equal names the last one counts; a search for each would take time that grows with its square.
        self.xattrs.reverse();
        self.xattrs.sort_by(|(one, _), (other, _)| one.cmp(other));
        self.xattrs.dedup_by(|(one, _), (other, _)| one == other);
        Some(())
    }

    fn add_record(&mut self, key: &[u8], value: &[u8]) -> Option<()> {
        let text = || std::str::from_utf8(value).ok();
        let number = || text()?.parse::<u64>().ok().map(Some);
        match key {
            // An empty value takes a global record back: the header's value holds.
            b"path" | b"linkpath" | b"size" | b"uid" | b"gid" | b"mtime" if value.is_empty() => {}
            b"path" if value.contains(&0) => return None,
            b"linkpath" if value.contains(&0) => return None,
            b"path" => self.path = Some(value.to_vec()),
            b"linkpath" => self.link = Some(value.to_vec()),
            b"size" => self.size = number()?,
            b"uid" => self.uid = number()?,
            b"gid" => self.gid = number()?,
            b"mtime" => self.mtime = Some(parse_time(text()?)?),
            _ if key.starts_with(b"GNU.sparse.") => self.sparse = true,
            _ => {
                if let Some(name) = key.strip_prefix(XATTR)
                    && !name.is_empty()
                    && !name.contains(&0)
                {
                    self.xattrs.push((name.to_vec(), value.to_vec()));
                }
            }
        }
        Some(())
    }
}

/// Decimal seconds with any number of fraction digits, of which nine count.
fn parse_time(text: &str) -> Option<Time> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    if !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let seconds: i64 = whole.parse().ok()?;
    let digits: String = fraction.chars().chain("000000000".chars()).take(9).collect();
    let nanoseconds: u32 = digits.parse().ok()?;
    if whole.starts_with('-') && nanoseconds > 0 {
        return Some(Time {
            seconds: seconds.checked_sub(1)?,
            nanoseconds: 1_000_000_000 - nanoseconds,
        });
    }
    Some(Time { seconds, nanoseconds })
}

struct Header<'a> {
    block: &'a [u8; BLOCK],
    at: u64,
}

impl<'a> Header<'a> {
    fn field(&self, start: usize, length: usize) -> &'a [u8] {
        self.block
            .get(start..start + length)
            .expect("all fields lie within the block")
    }

    fn flag(&self) -> u8 {
        self.block[156]
    }

    fn verify(&self) -> Result<(), ArchiveError> {
        let counted = |start, length| self.field(start, length).iter();
        // The checksum field itself counts as spaces; old writers summed signed bytes.
        let bytes = || counted(0, 148).chain(counted(156, BLOCK - 156));
        let unsigned: i64 = bytes().map(|byte| i64::from(*byte)).sum::<i64>() + 8 * 32;
        let signed: i64 = bytes().map(|byte| i64::from(byte.cast_signed())).sum::<i64>() + 8 * 32;
        match self.number(148, 8) {
            Some(sum) if sum == unsigned || sum == signed => Ok(()),
            _ => Err(ArchiveError::Header {
                at: self.at,
                what: "checksum",
            }),
        }
    }

    fn size(&self) -> Result<u64, ArchiveError> {
        self.unsigned(124, 12).ok_or(ArchiveError::Header {
            at: self.at,
            what: "size",
        })
    }

    fn path(&self) -> Vec<u8> {
        let name = until_nul(self.field(0, 100));
        // GNU's variant of the magic uses the prefix field for other things.
        let prefix = if self.field(257, 6) == b"ustar\0" {
            until_nul(self.field(345, 155))
        } else {
            &[]
        };
        if prefix.is_empty() {
            name.to_vec()
        } else {
            [prefix, b"/", name].concat()
        }
    }

    fn unsigned(&self, start: usize, length: usize) -> Option<u64> {
        u64::try_from(self.number(start, length)?).ok()
    }

    /// An octal number, or a big-endian binary one if the first bit is set. An empty field is zero.
    fn number(&self, start: usize, length: usize) -> Option<i64> {
        let field = self.field(start, length);
        let first = *field.first()?;
        if first & 0x80 != 0 {
            // Two's complement, in which the first byte's first bit is the mark and its second the sign.
            let invert = if first & 0x40 != 0 { 0xff } else { 0 };
            let mut value: u64 = 0;
            for (at, byte) in field.iter().enumerate() {
                if value >> 55 != 0 {
                    return None;
                }
                let byte = (byte ^ invert) & if at == 0 { 0x7f } else { 0xff };
                value = (value << 8) | u64::from(byte);
            }
            let value = i64::try_from(value).ok()?;
            return Some(if invert == 0 { value } else { !value });
        }
        let text = std::str::from_utf8(field).ok()?.trim_matches([' ', '\0']);
        if text.is_empty() {
            Some(0)
        } else {
            i64::from_str_radix(text, 8).ok()
        }
    }
}

fn until_nul(text: &[u8]) -> &[u8] {
    text.split(|byte| *byte == 0).next().unwrap_or(text)
}
