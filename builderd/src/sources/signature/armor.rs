//! Binary data as text: blocks of base64 between a line that begins them and one that ends them.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::Malformed;

#[derive(Debug, PartialEq, Eq)]
pub(super) struct Block {
    /// Of the line that begins it: `PGP SIGNATURE`.
    pub(super) label: String,
    pub(super) data: Vec<u8>,
}

/// All blocks of a text, in which anything may stand between them.
pub(super) fn blocks(text: &str) -> Result<Vec<Block>, Malformed> {
    let mut blocks = Vec::new();
    let mut lines = text.lines().map(str::trim_end);
    while let Some(line) = lines.next() {
        if let Some(label) = begun(line) {
            blocks.push(Block {
                label: label.to_owned(),
                data: data(label, &mut lines)?,
            });
        }
    }
    Ok(blocks)
}

/// What a line begins, if it begins a block.
pub(super) fn begun(line: &str) -> Option<&str> {
    line.strip_prefix("-----BEGIN ")?.strip_suffix("-----")
}

fn data<'a>(label: &str, lines: &mut impl Iterator<Item = &'a str>) -> Result<Vec<u8>, Malformed> {
    let end = format!("-----END {label}-----");
    let mut encoded = String::new();
    let mut checksum = false;
    for line in lines {
        if line == end {
            let decoded = STANDARD.decode(&encoded);
            return decoded.map_err(|_| Malformed("a block is not encoded with base64"));
        }
        // Headers stand before the data, and no line of data has a colon.
        if line.is_empty() || (encoded.is_empty() && line.contains(':')) {
            continue;
        }
        // A checksum says nothing that the signature does not say better.
        if line.len() == 5 && line.starts_with('=') {
            checksum = true;
            continue;
        }
        if checksum {
            return Err(Malformed("a block goes on behind its checksum"));
        }
        encoded.push_str(line);
    }
    Err(Malformed("a block has no end"))
}
