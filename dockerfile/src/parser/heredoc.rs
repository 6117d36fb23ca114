//! Heredoc words: `<<EOF`, `<<-"EOF"`, `3<<EOF`.

use crate::expand::{Environment, Expander, Quotes, Unset};

/// An inline document of RUN, COPY or ADD.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heredoc {
    /// The word that ends it.
    pub name: String,
    /// The number before `<<`, 0 when there is none.
    pub descriptor: u32,
    /// Whether COPY expands variables in it: not if the word was quoted.
    pub expand: bool,
    /// `<<-`: leading tabs are taken off.
    pub chomp: bool,
    /// As written, tabs included.
    pub content: String,
}

impl Heredoc {
    /// Reads one word of a line; the content comes later.
    pub fn parse(word: &str) -> Option<Self> {
        let digits = word.find(|ch: char| !ch.is_ascii_digit())?;
        let after = word[digits..].strip_prefix("<<")?;
        let (chomp, after) = after
            .strip_prefix('-')
            .map_or((false, after), |after| (true, after));
        let after = after.trim_start_matches([' ', '\t', '\r', '\n', '\u{c}']);
        if after.is_empty() || after.contains('<') {
            return None;
        }
        let plain = single_word(Quotes::Removed, after)?;
        let quoted = single_word(Quotes::Kept, after)?;
        let quotes = |text: &str| text.matches(['\'', '"']).count();
        Some(Self {
            expand: quotes(&plain) == quotes(&quoted),
            name: plain,
            descriptor: word[..digits].parse().unwrap_or(0),
            chomp,
            content: String::new(),
        })
    }

    /// The content as the reader of the document gets it.
    pub fn body(&self) -> String {
        if !self.chomp {
            return self.content.clone();
        }
        self.content
            .split_inclusive('\n')
            .map(|line| line.trim_start_matches('\t'))
            .collect()
    }
}

fn single_word(quotes: Quotes, text: &str) -> Option<String> {
    let expander = Expander {
        escape: '\\',
        quotes,
        unset: Unset::Kept,
        keep_escapes: false,
    };
    let mut words = expander.words(text, &Environment::new()).ok()?;
    if words.len() == 1 { words.pop() } else { None }
}

/// The heredocs that a line opens, in order. A line that is no valid sequence of words opens none.
pub(super) fn in_line(line: &str) -> Vec<Heredoc> {
    let expander = Expander {
        escape: '\\',
        quotes: Quotes::Kept,
        unset: Unset::Kept,
        keep_escapes: true,
    };
    let words = expander.words(line, &Environment::new()).unwrap_or_default();
    words.iter().filter_map(|word| Heredoc::parse(word)).collect()
}
