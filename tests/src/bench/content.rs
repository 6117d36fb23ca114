//! Bytes to build images of: the same in every run, and as compressible as what images hold.

use std::path::Path;

/// A stream of numbers that only looks random.
pub(super) struct Numbers(u64);

impl Numbers {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(2).wrapping_add(1))
    }

    fn next(&mut self) -> u64 {
        // SplitMix64: good enough to keep compressors busy.
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// About a third of its size when compressed, as programs and libraries are: noise, and words that come again.
    pub(super) fn bytes(&mut self, length: usize) -> Vec<u8> {
        let words: Vec<[u8; 24]> = (0..512)
            .map(|_| {
                let mut word = [0; 24];
                for byte in &mut word {
                    *byte = b'a' + u8::try_from(self.next() % 26).unwrap_or_default();
                }
                word
            })
            .collect();
        let mut bytes = Vec::with_capacity(length + 24);
        while bytes.len() < length {
            let choice = self.next();
            if choice.is_multiple_of(4) {
                bytes.extend_from_slice(&self.next().to_le_bytes());
            } else {
                let index = usize::try_from(choice >> 32).unwrap_or_default() % words.len();
                bytes.extend_from_slice(&words[index]);
            }
        }
        bytes.truncate(length);
        bytes
    }
}

/// Writes `count` files of about `size` bytes, a hundred to a folder.
pub(super) fn small_files(folder: &Path, count: usize, size: usize) -> std::io::Result<()> {
    let mut numbers = Numbers::new(7);
    for index in 0..count {
        let parent = folder.join(format!("{:03}", index / 100));
        if index % 100 == 0 {
            std::fs::create_dir_all(&parent)?;
        }
        std::fs::write(parent.join(format!("{index}.txt")), numbers.bytes(size))?;
    }
    Ok(())
}
