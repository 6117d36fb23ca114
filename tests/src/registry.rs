//! A real registry, of the distribution project, on a port of its own.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::busybox;
use crate::distribution::Repository;
use crate::process::Running;
use crate::programs::setup_folder;
use crate::waiting::wait_for;

#[derive(Debug)]
pub struct Registry {
    _process: Running,
    address: String,
    storage: PathBuf,
}

impl Registry {
    /// Starts one that keeps everything below `folder`.
    pub fn start(folder: &Path) -> Self {
        Self::start_with(folder, "")
    }

    /// Starts one that lets in only the user "user" with the password "secret".
    pub fn start_closed(folder: &Path) -> Self {
        let passwords = folder.join("htpasswd");
        let line = "user:$2y$05$abcdefghijklmnopqrstuuOQiyCxlgf/oeuTqixKmWdcYUh4Hjl0a\n";
        std::fs::write(&passwords, line).expect("the folder can be written");
        let path = passwords.display();
        Self::start_with(
            folder,
            &format!("auth: {{htpasswd: {{realm: test, path: {path}}}}}\n"),
        )
    }

    fn start_with(folder: &Path, more: &str) -> Self {
        let storage = folder.join("registry");
        std::fs::create_dir_all(&storage).expect("the folder can be written");
        let configuration = folder.join("registry.yml");
        let text = format!(
            "version: 0.1\nlog: {{level: info, accesslog: {{disabled: true}}}}\n\
             storage: {{filesystem: {{rootdirectory: {}}}, delete: {{enabled: true}}}}\nhttp: {{addr: \"127.0.0.1:0\"}}\n{more}",
            storage.display()
        );
        std::fs::write(&configuration, text).expect("the folder can be written");
        let mut command = Command::new("docker-registry");
        let process = Running::start(
            command.arg("serve").arg(&configuration),
            &folder.join("registry.log"),
        );
        // The kernel chose the port; the registry tells which.
        let port = wait_for("the registry to listen", Duration::from_secs(15), || {
            let log = process.log();
            let (_, after) = log.split_once("listening on 127.0.0.1:")?;
            let port: String = after.chars().take_while(char::is_ascii_digit).collect();
            (after.len() > port.len()).then_some(port)
        });
        Self {
            _process: process,
            address: format!("localhost:{port}"),
            storage,
        }
    }

    /// What image names have as their host.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Where it keeps blobs and manifests.
    pub fn storage(&self) -> &Path {
        &self.storage
    }

    pub fn repository(&self, name: &str) -> Repository {
        Repository::new(&self.address, name)
    }

    /// Pushes the BusyBox image, for all its platforms, as `base:latest`; returns its full name.
    pub fn push_base(&self) -> String {
        let images = busybox::images(&setup_folder().join("busybox")).expect("scripts/setup fetched BusyBox");
        self.repository("base")
            .push_index("latest", &images)
            .expect("the registry takes images");
        format!("{}/base", self.address)
    }
}
