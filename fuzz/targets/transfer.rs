//! Any packets from a client that was asked for a folder: received into a real store. Whatever comes, nothing is
//! written outside of the layer, and a folder that was received can be received again without a byte of data.
#![no_main]

mod world;

use std::time::Duration;

use builderd::sources::local::{LocalSource, receive};
use futures::{StreamExt as _, stream};
use libfuzzer_sys::fuzz_target;
use prost::Message as _;
use proto::fsutil::Packet;
use proto::transfer::Receiving;
use tokio::sync::mpsc;

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
    world::with(async |store, run| {
        let key = run.to_string();
        let (replies, mut requests) = mpsc::channel(4);
        let files = Receiving::new(stream::iter(packets.into_iter().map(Ok)).boxed(), replies);
        let source = LocalSource::default();
        let receiving = receive(files, &source, &key, store, |_| {});
        let listening = async { while requests.recv().await.is_some() {} };
        let both = async { tokio::join!(receiving, listening).0 };
        let received = tokio::time::timeout(Duration::from_secs(20), both).await;
        let _ = received.expect("every transfer ends");
    });
});
