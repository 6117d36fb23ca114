//! Builds that a client drives itself: it asks for results, looks into them, and talks to processes in containers.

#![expect(clippy::panic, reason = "helpers of tests fail the test")]

use std::time::Duration;

use proto::gateway::exec_message::Input as Said;
use proto::gateway::{
    self, ExecMessage, FdMessage, InitMessage, NewContainerRequest, ReadFileRequest, ReleaseContainerRequest,
    ResizeMessage, ReturnRequest, SignalMessage,
};
use proto::pb;
use tests::api::{Api, Bridge};
use tests::daemon;
use tests::llb::{self, Llb};
use tests::needs::{Need, given};
use tests::waiting::wait_until;
use tests::world::World;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status, Streaming};

const NEEDS: [Need; 3] = [Need::Root, Need::Registry, Need::BusyBox];
const PATIENCE: Duration = Duration::from_secs(20);
const STDIN: u32 = 0;
const STDOUT: u32 = 1;
const CONTAINER: &str = "container";

/// The processes of a client's containers.
struct Processes {
    to: mpsc::Sender<ExecMessage>,
    from: Streaming<ExecMessage>,
}

/// How a process ended.
struct Ended {
    output: String,
    code: u32,
}

impl Processes {
    async fn open(bridge: &mut Bridge) -> Self {
        let (to, messages) = mpsc::channel(16);
        let from = bridge.exec_process(ReceiverStream::new(messages)).await.unwrap();
        Self {
            to,
            from: from.into_inner(),
        }
    }

    async fn say(&self, process: &str, input: Said) {
        let message = ExecMessage {
            process_id: process.to_owned(),
            input: Some(input),
        };
        self.to.send(message).await.unwrap();
    }

    async fn hear(&mut self) -> (String, Said) {
        let message = tokio::time::timeout(PATIENCE, self.from.message()).await.unwrap();
        let message = message.unwrap().unwrap();
        (message.process_id, message.input.unwrap())
    }

    /// Starts a script, and waits until it runs.
    async fn start(&mut self, process: &str, script: &str, tty: bool) {
        let meta = pb::Meta {
            args: ["/bin/sh", "-c", script].map(str::to_owned).to_vec(),
            cwd: "/".to_owned(),
            env: vec!["PATH=/bin".to_owned()],
            ..pb::Meta::default()
        };
        let init = InitMessage {
            container_id: CONTAINER.to_owned(),
            meta: Some(meta),
            fds: vec![STDIN, STDOUT],
            tty,
            ..InitMessage::default()
        };
        self.say(process, Said::Init(init)).await;
        let (started, what) = self.hear().await;
        assert_eq!(started, process);
        assert!(matches!(what, Said::Started(_)), "{what:?}");
    }

    async fn write(&self, process: &str, data: &str, eof: bool) {
        let data = data.to_owned().into();
        let file = FdMessage { fd: STDIN, eof, data };
        self.say(process, Said::File(file)).await;
    }

    /// What a process says from now on to its end; no other one may say anything.
    async fn end(&mut self, process: &str) -> Ended {
        let (mut output, mut code) = (Vec::new(), None);
        loop {
            let (from, said) = self.hear().await;
            assert_eq!(from, process);
            match said {
                Said::File(file) if file.fd == STDOUT => output.extend_from_slice(&file.data),
                Said::Exit(exit) => code = Some(exit.code),
                Said::Done(_) => break,
                other => panic!("{other:?}"),
            }
        }
        Ended {
            output: String::from_utf8(output).unwrap(),
            code: code.unwrap(),
        }
    }
}

async fn solve(bridge: &mut Bridge, definition: pb::Definition) -> gateway::Ref {
    let answer = bridge.solve(llb::request(definition)).await.unwrap();
    llb::result_of(answer.into_inner())
}

/// A container on the files of the base image.
async fn container(bridge: &mut Bridge, world: &World) {
    let mut llb = Llb::default();
    let base = llb.image(&world.image("base"));
    let base = solve(bridge, llb.with_result(base)).await;
    let root = pb::Mount {
        dest: "/".to_owned(),
        result_id: base.id,
        ..pb::Mount::default()
    };
    let request = NewContainerRequest {
        container_id: CONTAINER.to_owned(),
        mounts: vec![root],
        ..NewContainerRequest::default()
    };
    bridge.new_container(request).await.unwrap();
}

async fn read(bridge: &mut Bridge, path: &str) -> Result<String, Status> {
    let request = ReadFileRequest {
        r#ref: CONTAINER.to_owned(),
        file_path: path.to_owned(),
        ..ReadFileRequest::default()
    };
    let read = bridge.read_file_container(request).await?.into_inner();
    Ok(String::from_utf8(read.data.to_vec()).unwrap())
}

#[test]
fn a_client_talks_to_the_processes_of_its_containers() {
    if !given(&NEEDS) {
        return;
    }
    let world = World::new();
    let api = Api::connect(&daemon::socket(world.folder()));
    let driven = api.drive("talk", async |mut bridge| {
        container(&mut bridge, &world).await;
        let mut processes = Processes::open(&mut bridge).await;
        processes
            .start("first", "read a; echo got $a >/made; cat; exit 7", false)
            .await;
        // Another one joins it.
        processes.start("second", "ls /proc/1/cwd/bin/sh", false).await;
        let second = processes.end("second").await;
        assert_eq!((second.output.as_str(), second.code), ("/proc/1/cwd/bin/sh\n", 0));
        processes.write("first", "this\nand that", false).await;
        processes.write("first", "", true).await;
        let first = processes.end("first").await;
        assert_eq!((first.output.as_str(), first.code), ("and that", 7));
        assert_eq!(read(&mut bridge, "/made").await.unwrap(), "got this\n");
        assert_eq!(
            read(&mut bridge, "/unmade").await.unwrap_err().code(),
            Code::NotFound
        );

        let release = ReleaseContainerRequest {
            container_id: CONTAINER.to_owned(),
        };
        // It says how the container ended.
        let released = bridge.release_container(release).await.unwrap_err();
        assert_eq!(released.message(), "exit code: 7");
        assert_eq!(
            read(&mut bridge, "/made").await.unwrap_err().code(),
            Code::NotFound
        );

        // What a container did is not what its files are for others.
        container(&mut bridge, &world).await;
        assert_eq!(
            read(&mut bridge, "/made").await.unwrap_err().code(),
            Code::NotFound
        );
        ReturnRequest::default()
    });
    driven.unwrap();
}

#[test]
fn a_process_may_have_a_terminal_and_hears_signals() {
    if !given(&NEEDS) {
        return;
    }
    let world = World::new();
    let api = Api::connect(&daemon::socket(world.folder()));
    let driven = api.drive("terminal", async |mut bridge| {
        container(&mut bridge, &world).await;
        let mut processes = Processes::open(&mut bridge).await;
        let script = "test -t 0 && test -t 1 || exit 1; read go; stty size; trap 'exit 9' HUP; echo ready; \
                      while true; do sleep 0.1; done";
        processes.start("shell", script, true).await;
        let size = ResizeMessage { rows: 40, cols: 133 };
        processes.say("shell", Said::Resize(size)).await;
        processes.write("shell", "go\n", false).await;
        let mut shown = String::new();
        while !shown.contains("ready") {
            let (_, said) = processes.hear().await;
            match said {
                Said::File(file) => shown.push_str(std::str::from_utf8(&file.data).unwrap()),
                other => panic!("{other:?} after {shown:?}"),
            }
        }
        assert!(shown.contains("40 133\r\n"), "{shown:?}");
        let hang_up = SignalMessage {
            name: "SIGHUP".to_owned(),
        };
        processes.say("shell", Said::Signal(hang_up)).await;
        assert_eq!(processes.end("shell").await.code, 9);
        ReturnRequest::default()
    });
    driven.unwrap();
}

#[test]
fn what_runs_when_a_build_ends_is_ended() {
    if !given(&NEEDS) {
        return;
    }
    let world = World::new();
    let api = Api::connect(&daemon::socket(world.folder()));
    let marker = format!("7{}", std::process::id());
    let runs = || {
        let all = std::fs::read_dir("/proc").unwrap().flatten();
        let lines = all.filter_map(|entry| std::fs::read(entry.path().join("cmdline")).ok());
        let wanted = format!("sleep\0{marker}\0").into_bytes();
        lines.into_iter().any(|line| line == wanted)
    };
    // The conversation goes on: it is the end of the build that ends the process.
    let mut kept = None;
    let refused = api.drive("left", async |mut bridge| {
        container(&mut bridge, &world).await;
        let mut processes = Processes::open(&mut bridge).await;
        processes
            .start("sleeper", &format!("exec sleep {marker}"), false)
            .await;
        wait_until("the process", PATIENCE, runs);
        kept = Some(processes);
        ReturnRequest {
            error: Some(proto::rpc::Status {
                code: Code::Aborted.into(),
                message: "had enough".to_owned(),
                details: Vec::new(),
            }),
            ..ReturnRequest::default()
        }
    });
    let refused = refused.unwrap_err();
    assert!(refused.message().contains("had enough"), "{refused:?}");
    wait_until("the end of the process", PATIENCE, || !runs());
    drop(kept);
}
