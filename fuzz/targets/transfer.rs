//! Any packets from a client that was asked for a folder: received into a real store. Whatever comes, nothing is
//! written outside of the layer, and a folder that was received can be received again without a byte of data.
#![no_main]

use std::cell::RefCell;
use std::time::Duration;

use builderd::sources::local::{LocalSource, receive};
use builderd::store::Store;
use futures::{StreamExt as _, stream};
use libfuzzer_sys::fuzz_target;
use prost::Message as _;
use proto::fsutil::Packet;
use proto::transfer::Receiving;
use tokio::sync::mpsc;

/// Runs that share a state folder: opening one takes longer than a run, and keeping it for good fills the disk.
const RUNS: usize = 400;

struct World {
    runs: usize,
    store: Store,
    folder: tempfile::TempDir,
}

impl World {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let store = Store::open(&folder.path().join("state")).expect("a store");
        Self { runs: 0, store, folder }
    }
}

thread_local! {
    static WORLD: RefCell<World> = RefCell::new(World::new());
}

/// Packets one after the other, each behind its length.
fn packets(mut data: &[u8]) -> Vec<Packet> {
    let mut packets = Vec::new();
    while !data.is_empty() {
        match Packet::decode_length_delimited(&mut data) {
            Ok(packet) => packets.push(packet),
            Err(_) => break,
        }
    }
    packets
}

fuzz_target!(|data: &[u8]| {
    let packets = packets(data);
    if packets.is_empty() {
        return;
    }
    WORLD.with_borrow_mut(|world| {
        if world.runs == RUNS {
            *world = World::new();
        }
        world.runs += 1;
        let key = world.runs.to_string();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .expect("a runtime");
        runtime.block_on(async {
            let (replies, mut requests) = mpsc::channel(4);
            let files = Receiving::new(stream::iter(packets.into_iter().map(Ok)).boxed(), replies);
            let source = LocalSource::default();
            let receiving = receive(files, &source, &key, &world.store, |_| {});
            let listening = async { while requests.recv().await.is_some() {} };
            let both = async { tokio::join!(receiving, listening).0 };
            let received = tokio::time::timeout(Duration::from_secs(20), both).await;
            let _ = received.expect("every transfer ends");
        });
        let beside = std::fs::read_dir(world.folder.path()).expect("the folder is there").count();
        assert_eq!(beside, 1, "something was written beside the state folder");
    });
});
