//! The only place that prints. Standard output is data; everything else goes to standard error.

use std::io::{self, Write as _};

/// Data for the user or for a pipe. A reader that has gone away is no failure of ours.
pub fn data(text: &str) -> io::Result<()> {
    data_bytes(text.as_bytes())
}

/// Data that need not be text.
pub fn data_bytes(bytes: &[u8]) -> io::Result<()> {
    let mut out = io::stdout().lock();
    match out.write_all(bytes).and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other,
    }
}

/// A remark for the user.
pub fn note(text: &str) {
    // Nothing is left to tell somebody whose standard error is closed.
    let _ = writeln!(io::stderr(), "{text}");
}

pub fn warn(text: &str) {
    note(&format!("WARNING: {text}"));
}
