//! The environment, read once.
//!
//! Nobody else in this crate reads environment variables. Flags win over what is here; what is here wins over files.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

#[derive(Clone, Default)]
pub struct Settings {
    variables: BTreeMap<String, String>,
}

/// Without the values: tokens and passwords are kept in the environment.
impl std::fmt::Debug for Settings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Settings").finish_non_exhaustive()
    }
}

impl Settings {
    pub fn from_environment() -> Self {
        // Values that are no text cannot name a path or a builder; they are left out.
        let variables = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .collect();
        Self { variables }
    }

    /// These settings with some variables changed, as flags of the Docker command line change them; `None` unsets.
    pub fn with(mut self, changes: &[(&str, Option<&str>)]) -> Self {
        for (name, value) in changes {
            match value {
                Some(value) => self.variables.insert((*name).to_owned(), (*value).to_owned()),
                None => self.variables.remove(*name),
            };
        }
        self
    }

    /// Settings of a test.
    pub fn of(variables: &[(&str, &str)]) -> Self {
        Self {
            variables: variables
                .iter()
                .map(|&(name, value)| (name.to_owned(), value.to_owned()))
                .collect(),
        }
    }

    /// All variables.
    pub fn all(&self) -> &BTreeMap<String, String> {
        &self.variables
    }

    /// A variable that is set and not empty.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.variables
            .get(name)
            .map(String::as_str)
            .filter(|value| !value.is_empty())
    }

    /// A variable that is set, also to nothing.
    pub fn get_even_empty(&self, name: &str) -> Option<&str> {
        self.variables.get(name).map(String::as_str)
    }

    /// Where the Docker command line keeps its configuration: `$DOCKER_CONFIG` or `~/.docker`.
    pub fn docker_config_folder(&self) -> PathBuf {
        match self.get("DOCKER_CONFIG") {
            Some(folder) => PathBuf::from(folder),
            None => self.home().join(".docker"),
        }
    }

    /// Where builder instances live: `$TRIMARAN_CONFIG`, else the folder `trimaran` of the Docker configuration.
    pub fn config_folder(&self) -> PathBuf {
        match self.get("TRIMARAN_CONFIG") {
            Some(folder) => PathBuf::from(folder),
            None => self.docker_config_folder().join("trimaran"),
        }
    }

    /// Where buildx keeps its own state: `$BUILDX_CONFIG`, else the folder `buildx` of the Docker configuration.
    pub fn buildx_folder(&self) -> PathBuf {
        match self.get("BUILDX_CONFIG") {
            Some(folder) => PathBuf::from(folder),
            None => self.docker_config_folder().join("buildx"),
        }
    }

    /// A builder named by the environment.
    pub fn builder(&self) -> Option<&str> {
        self.get("TRIMARAN_BUILDER")
            .or_else(|| self.get("BUILDX_BUILDER"))
    }

    /// The folder for sockets and other things that end with the user's session.
    pub fn runtime_folder(&self) -> Option<&Path> {
        self.get("XDG_RUNTIME_DIR")
            .map(Path::new)
            .filter(|folder| folder.is_dir())
    }

    pub fn home(&self) -> PathBuf {
        PathBuf::from(self.get("HOME").unwrap_or("/root"))
    }

    pub fn wants_colour(&self) -> bool {
        self.get("NO_COLOR").is_none() && self.get("TERM") != Some("dumb")
    }

    pub fn flag(&self, name: &str) -> bool {
        self.get(name)
            .is_some_and(|value| matches!(value, "1" | "t" | "T" | "true" | "TRUE" | "True"))
    }

    pub fn path(&self) -> impl Iterator<Item = PathBuf> + '_ {
        std::env::split_paths(self.get("PATH").unwrap_or("/usr/local/bin:/usr/bin:/bin"))
    }
}
