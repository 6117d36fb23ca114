//! Which files of a view an operation takes: wildcards in the path, patterns below it.
//!
//! Copying and computing cache keys walk through the same code, so a key covers exactly what a copy takes. What is
//! matched how follows BuildKit (its `fsutil` copier), because a file more or less is another image.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::vec;

use dockerfile::glob::{self, Glob};
use dockerfile::ignore::{ParentMatch, PatternError, PatternMatcher};

use super::{Directory, Entry, Found, Kind, LastLink, Resolved, View, ViewError, display};

/// Receives what is selected, parents first, siblings sorted by name. Paths are relative to the root of the walk.
pub trait Visit {
    type Error: From<ViewError>;

    fn enter(&mut self, relative: &Path, directory: &Directory, reason: Reason) -> Result<(), Self::Error>;
    /// Anything but a folder.
    fn leaf(&mut self, relative: &Path, entry: &Entry) -> Result<(), Self::Error>;
    /// All of the folder entered last and not left yet has been visited.
    fn leave(&mut self) -> Result<(), Self::Error>;
}

/// Why a folder is visited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    Selected,
    /// Not selected itself, but it holds something that is.
    OnTheWay,
}

/// Patterns in the dialect of `.dockerignore`, matched against paths relative to the root of a walk.
#[derive(Clone, Debug, Default)]
pub struct Selection {
    include: Option<PatternMatcher>,
    exclude: Option<PatternMatcher>,
}

struct Level {
    directory: Arc<Directory>,
    relative: PathBuf,
    entries: vec::IntoIter<Entry>,
    entered: bool,
    included_by: ParentMatch,
    excluded_by: ParentMatch,
}

impl Selection {
    /// No include pattern at all means everything.
    pub fn new(include: &[String], exclude: &[String]) -> Result<Self, PatternError> {
        let matcher = |patterns: &[String]| {
            (!patterns.is_empty())
                .then(|| PatternMatcher::new(patterns))
                .transpose()
        };
        Ok(Self {
            include: matcher(include)?,
            exclude: matcher(exclude)?,
        })
    }

    /// Walks `source`. The source itself is always selected, whatever the patterns say.
    pub fn walk<V: Visit>(&self, source: &Resolved, visitor: &mut V) -> Result<(), V::Error> {
        match &source.found {
            Found::Nothing => Err(ViewError::NotFound {
                path: source.path.clone(),
            }
            .into()),
            Found::Other(entry) => visitor.leaf(Path::new(""), entry),
            Found::Directory(directory) => self.walk_directory(directory, visitor),
        }
    }

    // The levels are kept in a list, not on the stack: how deep a tree is decides whoever made it.
    fn walk_directory<V: Visit>(&self, root: &Arc<Directory>, visitor: &mut V) -> Result<(), V::Error> {
        visitor.enter(Path::new(""), root, Reason::Selected)?;
        let mut levels = vec![Level {
            directory: Arc::clone(root),
            relative: PathBuf::new(),
            entries: root.entries()?.into_iter(),
            entered: true,
            included_by: ParentMatch::default(),
            excluded_by: ParentMatch::default(),
        }];
        while let Some(level) = levels.last_mut() {
            let Some(entry) = level.entries.next() else {
                if levels.pop().is_some_and(|level| level.entered) {
                    visitor.leave()?;
                }
                continue;
            };
            let relative = level.relative.join(entry.name());
            let text = relative.to_string_lossy();
            let (included, included_by) = match &self.include {
                Some(matcher) => matcher.matches_below(&text, &level.included_by),
                None => (true, ParentMatch::default()),
            };
            let (excluded, excluded_by) = match &self.exclude {
                Some(matcher) => matcher.matches_below(&text, &level.excluded_by),
                None => (false, ParentMatch::default()),
            };
            let selected = included && !excluded;
            if entry.metadata().kind != Kind::Directory {
                if selected {
                    enter_all(&mut levels, visitor)?;
                    visitor.leaf(&relative, &entry)?;
                }
                continue;
            }
            // Below a folder that is excluded only a pattern with `!` can bring something back.
            if excluded
                && !self
                    .exclude
                    .as_ref()
                    .is_some_and(PatternMatcher::has_reinclusions)
            {
                continue;
            }
            let directory = Arc::new(level.directory.open(&entry)?);
            let entries = directory.entries()?.into_iter();
            if selected {
                enter_all(&mut levels, visitor)?;
                visitor.enter(&relative, &directory, Reason::Selected)?;
            }
            levels.push(Level {
                directory,
                relative,
                entries,
                entered: selected,
                included_by,
                excluded_by,
            });
        }
        Ok(())
    }
}

/// A folder that is not selected itself is entered when something in it turns out to be.
fn enter_all<V: Visit>(levels: &mut [Level], visitor: &mut V) -> Result<(), V::Error> {
    for level in levels.iter_mut().filter(|level| !level.entered) {
        visitor.enter(&level.relative, &level.directory, Reason::OnTheWay)?;
        level.entered = true;
    }
    Ok(())
}

pub fn contains_wildcard(path: &str) -> bool {
    glob::has_wildcards(path)
}

/// The paths that match `pattern`, sorted, absolute. A path without wildcards is returned as it is.
///
/// The folders before the first wildcard may be links, those after it may not.
pub fn expand_wildcards(view: &View, pattern: &str, last: LastLink) -> Result<Vec<PathBuf>, ViewError> {
    if !contains_wildcard(pattern) {
        return Ok(vec![PathBuf::from(pattern)]);
    }
    let clean = display(Path::new(pattern));
    let names: Vec<OsString> = clean.iter().skip(1).map(OsString::from).collect();
    let fixed = names
        .iter()
        .take_while(|name| !contains_wildcard(&name.to_string_lossy()))
        .count();
    let prefix = names
        .iter()
        .take(fixed)
        .fold(PathBuf::from("/"), |path, name| path.join(name));
    let mut globs = Vec::with_capacity(names.len() - fixed);
    for name in names.iter().skip(fixed) {
        match Glob::new(&name.to_string_lossy()) {
            Ok(glob) => globs.push(glob),
            Err(_) => return Err(ViewError::Pattern { path: clean }),
        }
    }
    let Found::Directory(start) = view.lookup(&prefix, last)?.found else {
        return Ok(Vec::new());
    };
    let mut matches = Vec::new();
    collect(&start, &globs, &mut matches)?;
    Ok(matches)
}

fn collect(directory: &Directory, globs: &[Glob], matches: &mut Vec<PathBuf>) -> Result<(), ViewError> {
    let Some((glob, deeper)) = globs.split_first() else {
        return Ok(());
    };
    for entry in directory.entries()? {
        if !glob.matches(&entry.name().to_string_lossy()) {
            continue;
        }
        if deeper.is_empty() {
            matches.push(entry.path().to_owned());
        } else if entry.metadata().is_dir() {
            collect(&directory.open(&entry)?, deeper, matches)?;
        }
    }
    Ok(())
}
