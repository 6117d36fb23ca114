//! Files that servers pack for the way. What is kept is the file itself, whose digest others know.

use std::io::{self, Write as _};

use bytes::Bytes;
use flate2::write::MultiGzDecoder;
use futures::{StreamExt as _, stream};
use http::header::{CONTENT_ENCODING, HeaderMap};

use super::download::Body;

/// What servers are told that they may do.
pub(super) const ACCEPTED: &str = "gzip";
/// Of packed bytes, taken at a time: a thousand times that may come out.
const PIECE: usize = 4 << 10;

pub(super) fn is_packed(headers: &HeaderMap) -> bool {
    let encoding = headers
        .get(CONTENT_ENCODING)
        .and_then(|value| value.to_str().ok());
    encoding.is_some_and(|encoding| encoding.trim().eq_ignore_ascii_case(ACCEPTED))
}

/// The file in a response's body.
pub(super) fn unpacked(headers: &HeaderMap, body: Body) -> Body {
    if !is_packed(headers) {
        return body;
    }
    let packed = Packed {
        body,
        rest: Bytes::new(),
        decoder: MultiGzDecoder::new(Vec::new()),
    };
    stream::try_unfold(Some(packed), async |packed| match packed {
        Some(packed) => packed.next().await,
        None => Ok(None),
    })
    .boxed()
}

struct Packed {
    body: Body,
    /// Arrived and not yet unpacked.
    rest: Bytes,
    decoder: MultiGzDecoder<Vec<u8>>,
}

type Problem = Box<dyn std::error::Error + Send + Sync>;

impl Packed {
    /// Some of the file, and what is left to do.
    async fn next(mut self) -> Result<Option<(Bytes, Option<Self>)>, Problem> {
        while self.rest.is_empty() {
            match self.body.next().await {
                Some(chunk) => self.rest = chunk?,
                None => {
                    self.decoder.try_finish().map_err(|error| broken(&error))?;
                    let last = std::mem::take(self.decoder.get_mut());
                    return Ok(Some((last.into(), None)));
                }
            }
        }
        let piece = self.rest.split_to(self.rest.len().min(PIECE));
        self.decoder.write_all(&piece).map_err(|error| broken(&error))?;
        let file = std::mem::take(self.decoder.get_mut());
        Ok(Some((file.into(), Some(self))))
    }
}

fn broken(error: &io::Error) -> Problem {
    io::Error::new(error.kind(), format!("its gzip encoding is broken: {error}")).into()
}
