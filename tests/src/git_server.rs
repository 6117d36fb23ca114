//! Git repositories behind a web server, in both of git's ways: the protocol, and plain files.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::web::{Reply, Request, WebServer};

/// What the server asks for and how it answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Manner {
    Protocol,
    /// Files as they lie there, as any web server has them.
    Files,
}

#[derive(Debug)]
pub struct GitServer {
    pub web: WebServer,
    folder: PathBuf,
}

impl GitServer {
    /// Serves the repositories below `folder`; with a password only to who has this value of `Authorization`.
    pub fn start(folder: &Path, manner: Manner, password: Option<&str>) -> Self {
        let password = password.map(str::to_owned);
        let root = folder.to_owned();
        let web = WebServer::start(move |request| {
            if let Some(password) = &password
                && request.header("authorization") != Some(password)
            {
                return Reply::status(401).header("WWW-Authenticate", "Basic realm=\"git\"");
            }
            match manner {
                Manner::Protocol => backend(&root, request).unwrap_or_else(|_| Reply::status(500)),
                Manner::Files => file(&root, &request.path),
            }
        });
        Self {
            web,
            folder: folder.to_owned(),
        }
    }

    pub fn url(&self, repository: &str) -> String {
        self.web.url(&format!("/{repository}"))
    }

    /// Puts files into a repository, which is made if it is not there, as a commit on `main`; returns its name.
    pub fn commit(&self, repository: &str, files: &[(&str, &str)]) -> String {
        let bare = self.folder.join(repository);
        if !bare.exists() {
            git(
                &self.folder,
                &["init", "--quiet", "--bare", "--initial-branch=main", repository],
            );
        }
        let work = self.folder.join(format!("{repository}.work"));
        std::fs::create_dir_all(&work).expect("the folder can be written");
        for (path, content) in files {
            let path = work.join(path);
            std::fs::create_dir_all(path.parent().expect("files lie in the repository"))
                .expect("the folder can be written");
            std::fs::write(&path, content).expect("the folder can be written");
        }
        let here = [
            format!("--git-dir={}", bare.display()),
            format!("--work-tree={}", work.display()),
        ];
        let run = |arguments: &[&str]| {
            let all: Vec<&str> = here
                .iter()
                .map(String::as_str)
                .chain(arguments.iter().copied())
                .collect();
            git(&work, &all)
        };
        run(&["add", "--all"]);
        run(&["commit", "--quiet", "--allow-empty", "--message=files"]);
        run(&["update-server-info"]);
        run(&["rev-parse", "HEAD"])
    }

    /// Runs git in a repository.
    pub fn git(&self, repository: &str, arguments: &[&str]) -> String {
        let said = git(&self.folder.join(repository), arguments);
        git(&self.folder.join(repository), &["update-server-info"]);
        said
    }
}

fn git(folder: &Path, arguments: &[&str]) -> String {
    let output = Command::new("git")
        .args(["-c", "user.name=me", "-c", "user.email=me@example.com"])
        .args(arguments)
        .current_dir(folder)
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .output()
        .expect("git is installed");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "git {arguments:?}: {said}");
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// Git's own CGI program.
fn backend(root: &Path, request: &Request) -> anyhow::Result<Reply> {
    let mut command = Command::new("git");
    command
        .arg("http-backend")
        .env("GIT_PROJECT_ROOT", root)
        .env("GIT_HTTP_EXPORT_ALL", "1")
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("PATH_INFO", &request.path)
        .env("QUERY_STRING", &request.query)
        .env("REQUEST_METHOD", &request.method)
        .env("REMOTE_ADDR", "127.0.0.1")
        .env("CONTENT_LENGTH", request.body.len().to_string());
    for (header, variable) in [
        ("content-type", "CONTENT_TYPE"),
        ("content-encoding", "HTTP_CONTENT_ENCODING"),
        ("git-protocol", "GIT_PROTOCOL"),
    ] {
        if let Some(value) = request.header(header) {
            command.env(variable, value);
        }
    }
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()?;
    if let Some(mut input) = child.stdin.take() {
        input.write_all(&request.body)?;
    }
    let output = child.wait_with_output()?.stdout;
    let end = output.windows(4).position(|window| window == b"\r\n\r\n");
    let Some(end) = end else {
        return Ok(Reply::status(500));
    };
    let mut reply = Reply::of(&output[end + 4..]);
    for line in String::from_utf8_lossy(&output[..end]).split("\r\n") {
        match line.split_once(": ") {
            Some(("Status", status)) => {
                reply.status = status.split(' ').next().unwrap_or_default().parse()?;
            }
            Some((name, value)) => reply = reply.header(name, value),
            None => {}
        }
    }
    Ok(reply)
}

fn file(root: &Path, path: &str) -> Reply {
    match std::fs::read(root.join(path.trim_start_matches('/'))) {
        Ok(content) => Reply::of(content),
        Err(_) => Reply::status(404),
    }
}
