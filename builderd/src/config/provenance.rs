//! What an administrator adds to the provenance of all builds: the fields of all JSON files in a folder.

use std::path::Path;

use super::ConfigError;
use crate::solver::Environment;

/// Reads the folder in the order of names; later files win. A folder that is not there adds nothing.
pub fn environment(folder: &Path) -> Result<Environment, ConfigError> {
    let failed = |path: &Path, source| ConfigError::Read {
        path: path.to_owned(),
        source,
    };
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Environment::new()),
        Err(error) => return Err(failed(folder, error)),
    };
    let mut files = Vec::new();
    for entry in entries {
        let path = entry.map_err(|error| failed(folder, error))?.path();
        if path.extension().is_some_and(|extension| extension == "json") && !path.is_dir() {
            files.push(path);
        }
    }
    files.sort();
    let mut environment = Environment::new();
    for path in files {
        let text = std::fs::read(&path).map_err(|error| failed(&path, error))?;
        let fields: Environment = serde_json::from_slice(&text).map_err(|error| ConfigError::Parse {
            message: error.to_string(),
            path,
        })?;
        environment.extend(fields);
    }
    Ok(environment)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_add_up_and_what_is_no_json_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
        assert!(environment(&folder.path().join("absent")).unwrap().is_empty());
        write("a.json", r#"{"team":"x","n":[1]}"#);
        write("b.json", r#"{"team":"y"}"#);
        write("c.txt", "no json");
        let found = environment(folder.path()).unwrap();
        assert_eq!(serde_json::to_string(&found).unwrap(), r#"{"n":[1],"team":"y"}"#);
        write("d.json", "{");
        assert!(
            environment(folder.path())
                .unwrap_err()
                .to_string()
                .contains("d.json")
        );
    }
}
