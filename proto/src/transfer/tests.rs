//! Both ends against each other, over a real session tunnel.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;
use futures::{Stream, StreamExt};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::service::Routes;
use tonic::{Request, Response, Status, Streaming};

use super::*;
use crate::filesync::file_sync_client::FileSyncClient;
use crate::filesync::file_sync_server::{FileSync, FileSyncServer};
use crate::fsutil::packet::PacketType;
use crate::fsutil::{Packet, Stat};
use crate::tunnel::{self, Tunnel};

type Packets = Pin<Box<dyn Stream<Item = Result<Packet, Status>> + Send>>;

struct Folder(std::path::PathBuf);

#[tonic::async_trait]
impl FileSync for Folder {
    type DiffCopyStream = Packets;
    type TarStreamStream = Packets;

    async fn diff_copy(&self, request: Request<Streaming<Packet>>) -> Result<Response<Packets>, Status> {
        let mut requests = request.into_inner();
        let (packets, receiver) = mpsc::channel(4);
        let walk = Walk::new(&self.0, |path: &str, _| match path {
            "skipped" => Verdict::SkipAll,
            "deep" | "deep/er" => Verdict::Skip,
            _ => Verdict::Include,
        })
        .map_err(|error| Status::unknown(error.to_string()))?;
        tokio::spawn(async move { send(walk, &mut requests, packets).await });
        Ok(Response::new(ReceiverStream::new(receiver).map(Ok).boxed()))
    }

    async fn tar_stream(&self, _: Request<Streaming<Packet>>) -> Result<Response<Packets>, Status> {
        Err(Status::unimplemented("not this one"))
    }
}

/// A tunnel whose other end serves `folder`.
async fn serve(folder: &std::path::Path) -> FileSyncClient<tonic::transport::Channel> {
    let (to_client, for_client) = mpsc::channel(1);
    let (client, mut from_client) = Tunnel::new(ReceiverStream::new(for_client));
    let (to_daemon, for_daemon) = mpsc::channel(1);
    let (daemon, mut from_daemon) = Tunnel::new(ReceiverStream::new(for_daemon));
    tokio::spawn(async move {
        while let Some(bytes) = from_client.next().await {
            to_daemon.send(Ok(bytes)).await.ok();
        }
    });
    tokio::spawn(async move {
        while let Some(bytes) = from_daemon.next().await {
            to_client.send(Ok(bytes)).await.ok();
        }
    });
    let service = FileSyncServer::new(Folder(folder.to_owned()));
    tokio::spawn(tunnel::serve(
        client,
        Routes::new(service),
        std::future::pending(),
    ));
    FileSyncClient::new(tunnel::connect(daemon).await.unwrap())
}

#[tokio::test]
async fn a_tree_arrives_as_it_is() {
    let source = tempfile::tempdir().unwrap();
    let root = source.path();
    let large: Vec<u8> = (0..200_000_u32).map(|n| (n % 253) as u8).collect();
    fs::create_dir_all(root.join("a/empty")).unwrap();
    fs::create_dir_all(root.join("deep/er/est")).unwrap();
    fs::create_dir_all(root.join("skipped")).unwrap();
    fs::write(root.join("skipped/file"), "no").unwrap();
    fs::write(root.join("a/x"), "x").unwrap();
    fs::write(root.join("a-b"), large.clone()).unwrap();
    fs::write(root.join("a.b"), "").unwrap();
    fs::set_permissions(root.join("a.b"), fs::Permissions::from_mode(0o4751)).unwrap();
    fs::hard_link(root.join("a/x"), root.join("b")).unwrap();
    symlink("../outside", root.join("link")).unwrap();
    for n in 0..300 {
        fs::write(root.join(format!("deep/er/est/{n}")), format!("{n}")).unwrap();
    }

    let (stats, contents) = tokio::time::timeout(Duration::from_secs(60), receive_all(root))
        .await
        .expect("the transfer ends");

    let listed: Vec<_> = stats.iter().map(|stat| stat.path.as_str()).collect();
    assert_eq!(
        listed[..6],
        ["a", "a/empty", "a/x", "a-b", "a.b", "b"],
        "path order"
    );
    assert_eq!(listed[6..9], ["deep", "deep/er", "deep/er/est"]);
    assert_eq!(listed.last(), Some(&"link"));
    assert!(!listed.iter().any(|path| path.starts_with("skipped")));
    assert_eq!(stats[5].linkname, "a/x");
    assert_eq!(stats.last().unwrap().linkname, "../outside");
    assert_eq!(mode::to_stat(stats[4].mode), Some(0o104_751));

    assert_eq!(contents["a/x"], b"x");
    assert_eq!(contents["a-b"], large);
    assert_eq!(contents["a.b"], b"");
    assert!(!contents.contains_key("b"), "a hard link has no content");
    for n in 0..300 {
        let path = format!("deep/er/est/{n}");
        assert_eq!(contents[&path], n.to_string().as_bytes(), "{path}");
    }
}

async fn receive_all(root: &std::path::Path) -> (Vec<Stat>, BTreeMap<String, Vec<u8>>) {
    let mut client = serve(root).await;
    let (replies, receiver) = mpsc::channel(2);
    let packets = client
        .diff_copy(ReceiverStream::new(receiver))
        .await
        .unwrap()
        .into_inner();
    let mut receiving = Receiving::new(packets, replies);
    let mut stats = Vec::new();
    let mut contents = BTreeMap::new();
    let mut open = BTreeMap::new();
    while let Some(event) = receiving.next().await.unwrap() {
        match event {
            Event::Entry { id, stat, .. } => {
                if receiving.has_content(id) {
                    receiving.request(id).unwrap();
                    assert!(receiving.request(id).is_err(), "only once");
                    open.insert(id, (stat.path.clone(), Vec::new()));
                } else {
                    assert!(receiving.request(id).is_err());
                }
                stats.push(stat);
            }
            Event::EndOfListing => {}
            Event::Data { id, data } => open.get_mut(&id).unwrap().1.extend_from_slice(&data),
            Event::EndOfFile { id } => {
                let (path, content) = open.remove(&id).unwrap();
                contents.insert(path, content);
            }
        }
    }
    assert!(open.is_empty());
    (stats, contents)
}

fn packet(kind: PacketType, id: u32, data: &'static [u8]) -> Packet {
    Packet {
        r#type: kind.into(),
        id,
        data: Bytes::from_static(data),
        ..Packet::default()
    }
}

fn file(path: &str) -> Packet {
    Packet {
        stat: Some(Stat {
            path: path.into(),
            mode: 0o644,
            ..Stat::default()
        }),
        ..Packet::default()
    }
}

/// What a receiver that asks for every file says to `packets`.
async fn fail(packets: Vec<Packet>) -> ReceiveError {
    let (replies, _replies) = mpsc::channel(16);
    let packets = futures::stream::iter(packets).map(Ok);
    let mut receiving = Receiving::new(packets, replies);
    loop {
        match receiving.next().await {
            Ok(Some(Event::Entry { id, .. })) => receiving.request(id).unwrap(),
            Ok(Some(_)) => {}
            Ok(None) => panic!("the transfer must fail"),
            Err(error) => return error,
        }
    }
}

#[tokio::test]
async fn a_sender_that_breaks_the_protocol_is_refused() {
    let end = Packet::default;
    for (packets, expected) in [
        (
            vec![packet(PacketType::PacketData, 0, b"x")],
            "the sender broke the protocol: it sent a file that was not requested",
        ),
        (
            vec![
                file("a"),
                packet(PacketType::PacketData, 0, b""),
                packet(PacketType::PacketData, 0, b"again"),
            ],
            "the sender broke the protocol: it sent a file that was not requested",
        ),
        (
            vec![end(), file("a")],
            "the sender broke the protocol: an entry came after the listing",
        ),
        (
            vec![file("a"), end(), packet(PacketType::PacketFin, 0, b"")],
            "the sender broke the protocol: it finished before all was sent",
        ),
        (vec![file("../a")], "the listing is not valid"),
        (vec![file("a"), end()], "the file transfer was cut off"),
        (
            vec![packet(PacketType::PacketErr, 0, b"disk on fire")],
            "the sender gave up: disk on fire",
        ),
    ] {
        assert_eq!(fail(packets).await.to_string(), expected);
    }
}

#[tokio::test]
async fn a_file_can_be_requested_once_and_only_if_it_was_listed() {
    let source = tempfile::tempdir().unwrap();
    fs::create_dir(source.path().join("d")).unwrap();
    fs::write(source.path().join("f"), "x").unwrap();
    for (requests, invalid) in [(vec![0], 0), (vec![1, 1], 1), (vec![7], 7)] {
        let (packets, mut sent) = mpsc::channel(16);
        let (ask, asked) = mpsc::channel(16);
        let walk = Walk::new(source.path(), |_: &str, _| Verdict::Include).unwrap();
        let sending = tokio::spawn(async move { send(walk, &mut ReceiverStream::new(asked), packets).await });
        // Only after the listing are all ids known.
        while sent.recv().await.unwrap().stat.is_some() {}
        for id in requests {
            ask.send(Ok(packet(PacketType::PacketReq, id, b"")))
                .await
                .unwrap();
        }
        let told = loop {
            let packet = sent.recv().await.expect("the sender says why it fails");
            if packet.r#type() == PacketType::PacketErr {
                break packet.data;
            }
        };
        assert_eq!(told, format!("invalid file id {invalid}"));
        assert!(matches!(
            sending.await.unwrap(),
            Err(SendError::Request(id)) if id == invalid
        ));
    }
}
