//! The output of a step, bounded: its beginning and its end are kept, what lies between is counted.

use std::collections::VecDeque;

/// How much of a step's output is kept.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    pub head: usize,
    pub tail: usize,
}

#[derive(Debug, Default)]
pub(super) struct Log {
    head: Vec<u8>,
    tail: VecDeque<u8>,
    dropped: u64,
}

impl Log {
    pub(super) fn push(&mut self, bytes: &[u8], bounds: Bounds) {
        let mut rest = bytes;
        if self.tail.is_empty() && self.dropped == 0 {
            let room = bounds.head.saturating_sub(self.head.len()).min(rest.len());
            self.head.extend_from_slice(&rest[..room]);
            rest = &rest[room..];
        }
        // Of one large piece only the end can stay.
        let skipped = rest.len().saturating_sub(bounds.tail);
        self.dropped += skipped as u64;
        self.tail.extend(&rest[skipped..]);
        let excess = self.tail.len().saturating_sub(bounds.tail);
        self.tail.drain(..excess);
        self.dropped += excess as u64;
    }

    pub(super) fn size(&self) -> usize {
        self.head.len() + self.tail.len()
    }

    /// As people read it, and how many bytes are missing in the middle.
    pub(super) fn finish(self) -> (String, u64) {
        let Self {
            mut head,
            tail,
            dropped,
        } = self;
        if dropped == 0 {
            head.extend(tail);
            return (readable(&head), 0);
        }
        let tail: Vec<u8> = tail.into();
        // Halves of lines on both sides of the gap say nothing.
        let head_end = head
            .iter()
            .rposition(|byte| *byte == b'\n')
            .map_or(head.len(), |at| at + 1);
        let tail_begin = tail.iter().position(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        let missing = dropped + (head.len() - head_end) as u64 + tail_begin as u64;
        let text = format!(
            "{}\n[… {missing} bytes of output left out …]\n\n{}",
            readable(&head[..head_end]),
            readable(&tail[tail_begin..])
        );
        (text, missing)
    }
}

/// Without the escapes that colour terminals, and of lines that overwrite themselves only the last version.
fn readable(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let mut clean = String::with_capacity(text.len());
    for line in text.split_inclusive('\n') {
        let (line, end) = match line.strip_suffix('\n') {
            Some(line) => (line, "\n"),
            None => (line, ""),
        };
        let last = line
            .trim_end_matches('\r')
            .rsplit('\r')
            .next()
            .unwrap_or_default();
        push_plain(last, &mut clean);
        clean.push_str(end);
    }
    clean
}

fn push_plain(line: &str, into: &mut String) {
    let mut characters = line.chars().peekable();
    while let Some(character) = characters.next() {
        match character {
            '\u{1b}' => match characters.next() {
                // Up to the letter that ends it.
                Some('[') => while characters.next().is_some_and(|c| !('@'..='~').contains(&c)) {},
                // A title or a link: up to a bell or a string terminator.
                Some(']') => {
                    while let Some(c) = characters.next() {
                        if c == '\u{7}' || (c == '\u{1b}' && characters.next_if_eq(&'\\').is_some()) {
                            break;
                        }
                    }
                }
                _ => {}
            },
            '\t' => into.push('\t'),
            control if control.is_control() => {}
            other => into.push(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMALL: Bounds = Bounds { head: 10, tail: 20 };

    #[test]
    fn the_middle_of_much_output_is_left_out() {
        let mut log = Log::default();
        for number in 0..1000 {
            log.push(format!("{number}\n").as_bytes(), SMALL);
        }
        assert!(log.size() <= 30);
        let (text, missing) = log.finish();
        assert!(text.starts_with("0\n1\n2\n3\n4\n\n[… "), "{text}");
        assert!(text.ends_with("left out …]\n\n996\n997\n998\n999\n"), "{text}");
        assert_eq!(missing, 3890 - 10 - 16);
    }

    #[test]
    fn one_large_piece_is_as_bounded_as_many_small_ones() {
        let mut log = Log::default();
        log.push(&[b'x'; 100_000], SMALL);
        assert!(log.size() <= 30);
        assert!(log.finish().1 >= 100_000 - 30);
    }

    #[test]
    fn little_output_is_whole_and_plain() {
        let mut log = Log::default();
        log.push(
            b"\x1b[31mred\x1b[0m\t1\n 10%\r 50%\r100%\r\n\x1b]8;;x\x1b\\link\x07 \xff",
            SMALL,
        );
        let mut whole = Log::default();
        whole.push(b"\x1b[31mred\x1b[0m\t1\n", Bounds { head: 100, tail: 100 });
        whole.push(
            b" 10%\r 50%\r100%\r\n\x1b]8;;x\x1b\\link\x07 \xff",
            Bounds { head: 100, tail: 100 },
        );
        assert_eq!(whole.finish(), ("red\t1\n100%\nlink \u{fffd}".to_owned(), 0));
    }
}
