//! What a definition may see of the world. This crate looks at nothing by itself.

use std::collections::BTreeMap;
use std::io;

/// Reads a file, for what a compose file names.
pub type Read<'a> = dyn Fn(&str) -> io::Result<Vec<u8>> + Sync + 'a;

pub struct World<'a> {
    /// Variables that are there without being declared, such as `BAKE_CMD_CONTEXT`.
    pub builtins: BTreeMap<String, String>,
    /// Values given for this run; they win over the environment.
    pub variables: BTreeMap<String, String>,
    /// Empty if variables must not come from there.
    pub environment: BTreeMap<String, String>,
    pub home: String,
    /// Seconds since 1970, for `timestamp()`.
    pub now: i64,
    /// Relative contexts are resolved from the folder of the file that names them.
    pub file_relative_paths: bool,
    pub read: &'a Read<'a>,
}

impl World<'_> {
    pub(crate) fn lookup(&self, name: &str) -> Option<&str> {
        self.variables
            .get(name)
            .or_else(|| self.environment.get(name))
            .map(String::as_str)
    }
}

impl std::fmt::Debug for World<'_> {
    /// Without the environment, in which tokens are kept.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("World").finish_non_exhaustive()
    }
}
