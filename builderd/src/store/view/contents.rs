//! Copying the bytes of a file: shared if the file system can, else by the kernel, holes kept.

use std::fs::File;
use std::io::{self, Read, Write};

use rustix::fs::SeekFrom;
use rustix::io::Errno;

/// Up to here a read and a write are cheaper than asking for anything clever.
const SMALL: u64 = 64 << 10;

/// Copies `size` bytes, as the metadata said, from the start of `from` to the empty file `to`.
pub fn copy_contents(from: &mut File, to: &mut File, size: u64) -> io::Result<()> {
    if size <= SMALL {
        let mut bytes = Vec::with_capacity(usize::try_from(size).unwrap_or(0));
        from.read_to_end(&mut bytes)?;
        return to.write_all(&bytes);
    }
    if rustix::fs::ioctl_ficlone(&*to, &*from).is_ok() {
        return Ok(());
    }
    let mut position = 0;
    while position < size {
        let start = match rustix::fs::seek(&*from, SeekFrom::Data(position)) {
            Ok(start) => start,
            // Nothing but a hole up to the end.
            Err(Errno::NXIO) => break,
            Err(Errno::INVAL | Errno::OPNOTSUPP) => position,
            Err(errno) => return Err(errno.into()),
        };
        let end = match rustix::fs::seek(&*from, SeekFrom::Hole(start)) {
            Ok(end) => end,
            Err(Errno::INVAL | Errno::OPNOTSUPP | Errno::NXIO) => size,
            Err(errno) => return Err(errno.into()),
        };
        copy_range(from, to, start, end)?;
        position = end;
    }
    if rustix::fs::fstat(&*to)?.st_size != i64::try_from(size).unwrap_or(i64::MAX) {
        rustix::fs::ftruncate(&*to, size)?;
    }
    Ok(())
}

fn copy_range(from: &mut File, to: &mut File, start: u64, end: u64) -> io::Result<()> {
    let (mut read_at, mut write_at) = (start, start);
    while read_at < end {
        let length = usize::try_from(end - read_at).unwrap_or(usize::MAX).min(1 << 30);
        match rustix::fs::copy_file_range(&*from, Some(&mut read_at), &*to, Some(&mut write_at), length) {
            Ok(0) => return Ok(()),
            Ok(_) => {}
            Err(Errno::INTR) => {}
            Err(Errno::XDEV | Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP | Errno::PERM | Errno::IO) => {
                rustix::fs::seek(&*from, SeekFrom::Start(read_at))?;
                rustix::fs::seek(&*to, SeekFrom::Start(write_at))?;
                let mut rest = from.take(end - read_at);
                io::copy(&mut rest, to)?;
                return Ok(());
            }
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{FileExt as _, MetadataExt as _};

    use super::*;

    #[test]
    fn bytes_and_holes_arrive() {
        for (size, islands) in [
            (0_u64, vec![]),
            (10, vec![(0, 10)]),
            (SMALL + 1, vec![(0, 100)]),
            (8 << 20, vec![(1 << 20, 5000), (4 << 20, 70_000)]),
            (3 << 20, vec![((3 << 20) - 10, 10)]),
        ] {
            let mut from = tempfile::tempfile().unwrap();
            from.set_len(size).unwrap();
            for (at, length) in islands {
                from.write_all_at(&vec![b'x'; length], at).unwrap();
            }
            let mut to = tempfile::tempfile().unwrap();
            copy_contents(&mut from, &mut to, size).unwrap();
            let (mut expected, mut got) = (Vec::new(), Vec::new());
            rustix::fs::seek(&from, SeekFrom::Start(0)).unwrap();
            rustix::fs::seek(&to, SeekFrom::Start(0)).unwrap();
            from.read_to_end(&mut expected).unwrap();
            to.read_to_end(&mut got).unwrap();
            assert!(expected == got, "{size}");
            if size > SMALL {
                assert!(
                    to.metadata().unwrap().blocks() <= from.metadata().unwrap().blocks() + 16,
                    "{size}: holes were filled"
                );
            }
        }
    }
}
