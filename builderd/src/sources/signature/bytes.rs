//! Reading what lies one after the other.

use super::Malformed;

/// The rest of some bytes.
#[derive(Clone, Copy)]
pub(super) struct Bytes<'a>(pub(super) &'a [u8]);

impl<'a> Bytes<'a> {
    pub(super) fn is_empty(self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn take(&mut self, length: usize) -> Result<&'a [u8], Malformed> {
        let (taken, rest) = self
            .0
            .split_at_checked(length)
            .ok_or(Malformed("it ends too early"))?;
        self.0 = rest;
        Ok(taken)
    }

    pub(super) fn byte(&mut self) -> Result<u8, Malformed> {
        Ok(self.take(1)?.first().copied().unwrap_or_default())
    }

    /// A number, the highest byte first.
    pub(super) fn number(&mut self, size: usize) -> Result<usize, Malformed> {
        let bytes = self.take(size)?;
        Ok(bytes
            .iter()
            .fold(0, |number, byte| number << 8 | usize::from(*byte)))
    }

    /// What has its length, of so many bytes, in front.
    pub(super) fn counted(&mut self, size: usize) -> Result<&'a [u8], Malformed> {
        let length = self.number(size)?;
        self.take(length)
    }
}
