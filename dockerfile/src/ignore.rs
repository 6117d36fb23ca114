//! `.dockerignore`: reading the file, and the pattern matcher that the context sender and COPY share.
//!
//! A pattern that matches a folder matches everything below it; a later `!pattern` brings back what it matches. The
//! matcher follows Moby's in its quirks too (`foo/**` does not match `foo` itself, `[!b]` is not a negation), because
//! a context that differs by one file is a different build.

use crate::glob::{BadPattern, Glob};

#[derive(Debug, thiserror::Error, PartialEq, Eq, Clone)]
pub enum PatternError {
    #[error("illegal exclusion pattern: \"!\"")]
    LoneExclamation,
    #[error("{pattern:?}: {problem}")]
    Malformed { pattern: String, problem: BadPattern },
}

/// The patterns of a `.dockerignore` file: comments and blank lines gone, paths cleaned and made relative.
pub fn read_ignore_file(text: &str) -> Vec<String> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut patterns = Vec::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let line = line.trim();
        if line.is_empty() {
            continue;
        }
        let (mark, path) = match line.strip_prefix('!') {
            Some(rest) => ("!", rest.trim()),
            None => ("", line),
        };
        let path = if path.is_empty() {
            String::new()
        } else {
            clean(path)
        };
        let path = if path.len() > 1 {
            path.strip_prefix('/').unwrap_or(&path)
        } else {
            &path
        };
        patterns.push(format!("{mark}{path}"));
    }
    patterns
}

/// Go's `path.Clean`: no doubled slashes, no `.`, `..` resolved as far as it goes, `.` for nothing.
pub fn clean(path: &str) -> String {
    let rooted = path.starts_with('/');
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." if parts.last().is_some_and(|last| *last != "..") => {
                parts.pop();
            }
            ".." if rooted => {}
            part => parts.push(part),
        }
    }
    match (rooted, parts.is_empty()) {
        (true, _) => format!("/{}", parts.join("/")),
        (false, true) => ".".to_owned(),
        (false, false) => parts.join("/"),
    }
}

/// One pattern, with the shortcuts for the common shapes.
#[derive(Clone, Debug)]
pub struct Pattern {
    text: String,
    reincludes: bool,
    shape: Shape,
}

#[derive(Clone, Debug)]
enum Shape {
    Exact,
    /// `folder/**`: everything that starts with this.
    Prefix(String),
    /// `**/name`: everything that ends with this.
    Suffix(String),
    Glob(Glob),
}

impl Pattern {
    fn new(text: String, reincludes: bool) -> Result<Self, PatternError> {
        let malformed = |problem| PatternError::Malformed {
            pattern: text.clone(),
            problem,
        };
        // Checked in Go's dialect, as Moby does.
        Glob::new(&text).map_err(malformed)?;
        let plain = |part: &str| !part.contains(['*', '?', '[', ']', '\\']);
        let shape = match (text.strip_prefix("**"), text.strip_suffix("**")) {
            (Some(suffix), _) if plain(suffix) => Shape::Suffix(suffix.to_owned()),
            (_, Some(prefix)) if plain(prefix) => Shape::Prefix(prefix.to_owned()),
            _ if plain(&text) => Shape::Exact,
            _ => Shape::Glob(Glob::with_double_star(&text).map_err(malformed)?),
        };
        Ok(Self {
            text,
            reincludes,
            shape,
        })
    }

    /// The pattern, cleaned and without its `!`.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Whether it was written with `!`.
    pub fn reincludes(&self) -> bool {
        self.reincludes
    }

    /// Whether it matches `path` itself, parents not considered.
    pub fn matches(&self, path: &str) -> bool {
        match &self.shape {
            Shape::Exact => path == self.text,
            Shape::Prefix(prefix) => path.starts_with(prefix),
            Shape::Suffix(suffix) => path.ends_with(suffix) || suffix.strip_prefix('/') == Some(path),
            Shape::Glob(glob) => glob.matches(path),
        }
    }

    fn matches_a_parent(&self, path: &str) -> bool {
        path.match_indices('/').any(|(end, _)| self.matches(&path[..end]))
    }
}

/// A list of patterns, the last that applies decides.
#[derive(Clone, Debug, Default)]
pub struct PatternMatcher {
    patterns: Vec<Pattern>,
    reincludes: bool,
}

/// Which patterns matched a folder, for asking about its children. The default knows nothing and looks at all parents.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ParentMatch(Vec<bool>);

impl PatternMatcher {
    /// Patterns are trimmed and cleaned; empty ones are skipped.
    pub fn new<S: AsRef<str>>(patterns: impl IntoIterator<Item = S>) -> Result<Self, PatternError> {
        let mut matcher = Self::default();
        for pattern in patterns {
            let pattern = pattern.as_ref().trim();
            if pattern.is_empty() {
                continue;
            }
            let cleaned = clean(pattern);
            let compiled = match cleaned.strip_prefix('!') {
                Some("") => return Err(PatternError::LoneExclamation),
                Some(rest) => Pattern::new(rest.to_owned(), true)?,
                None => Pattern::new(cleaned, false)?,
            };
            matcher.reincludes |= compiled.reincludes;
            matcher.patterns.push(compiled);
        }
        Ok(matcher)
    }

    pub fn patterns(&self) -> &[Pattern] {
        &self.patterns
    }

    pub fn is_empty(&self) -> bool {
        self.patterns.is_empty()
    }

    /// Whether some pattern starts with `!`: then a matched folder still has to be walked.
    pub fn has_reinclusions(&self) -> bool {
        self.reincludes
    }

    /// Whether `path` (relative, `/` between parts) or one of its parents is matched in the end.
    pub fn matches_or_parent_matches(&self, path: &str) -> bool {
        self.matches_below(path, &ParentMatch::default()).0
    }

    /// The same for a walk: hand in what the parent folder gave, hand on what this gives to the children.
    pub fn matches_below(&self, path: &str, parent: &ParentMatch) -> (bool, ParentMatch) {
        let known = parent.0.len() == self.patterns.len() && !self.patterns.is_empty();
        let mut matched = false;
        let mut own = vec![false; self.patterns.len()];
        for (at, pattern) in self.patterns.iter().enumerate() {
            let mut hit = known && parent.0[at];
            if !hit {
                // A pattern that could change nothing is not tried, and counts as no match for the children.
                if pattern.reincludes != matched {
                    continue;
                }
                hit = pattern.matches(path) || (!known && pattern.matches_a_parent(path));
            }
            own[at] = hit;
            if hit {
                matched = !pattern.reincludes;
            }
        }
        (matched, ParentMatch(own))
    }

    /// Whether something below the folder `path` could be brought back by a `!` pattern, so that a walk has to go into
    /// it although the folder itself is matched. It errs on the side of walking.
    pub fn may_reinclude_below(&self, path: &str) -> bool {
        self.patterns
            .iter()
            .filter(|pattern| pattern.reincludes)
            .any(|pattern| {
                let fixed = &pattern.text[..pattern
                    .text
                    .find(['*', '?', '[', '\\'])
                    .unwrap_or(pattern.text.len())];
                let below = |longer: &str, shorter: &str| {
                    longer
                        .strip_prefix(shorter)
                        .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
                };
                let wild = fixed.len() < pattern.text.len();
                below(fixed, path) || (wild && (path.starts_with(fixed) || below(path, fixed)))
            })
    }
}

#[cfg(test)]
mod tests;
