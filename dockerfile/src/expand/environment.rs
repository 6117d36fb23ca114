//! The variables a word may name.

/// Variables in the order of their last assignment, which is the order a step sees them in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Environment {
    variables: Vec<(String, String)>,
}

impl Environment {
    pub fn new() -> Self {
        Self::default()
    }

    /// From `NAME=value` texts, as an image config has them. A text without `=` is a name with an empty value.
    pub fn from_pairs<S: AsRef<str>>(pairs: impl IntoIterator<Item = S>) -> Self {
        let mut environment = Self::new();
        for pair in pairs {
            let pair = pair.as_ref();
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            environment.set(name, value);
        }
        environment
    }

    /// Sets a variable; one that is there already moves to the end.
    pub fn set(&mut self, name: &str, value: &str) {
        self.variables.retain(|(known, _)| known != name);
        self.variables.push((name.to_owned(), value.to_owned()));
    }

    /// Forgets a variable.
    pub fn unset(&mut self, name: &str) {
        self.variables.retain(|(known, _)| known != name);
    }

    pub fn get(&self, name: &str) -> Option<&str> {
        let (_, value) = self.variables.iter().find(|(known, _)| known == name)?;
        Some(value)
    }

    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.variables
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
    }

    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.variables.iter().map(|(name, _)| name.as_str())
    }

    /// `NAME=value` texts.
    pub fn to_pairs(&self) -> Vec<String> {
        self.iter()
            .map(|(name, value)| [name, "=", value].concat())
            .collect()
    }
}
