//! Any bytes as the tar stream of a layer: read entry after entry, data and all, and unpacked into a real store.
#![no_main]

mod world;

use std::io::{Read as _, copy, sink};

use builderd::store::tar::{Archive, Kind};
use builderd::store::{Descriptor, KeepBlob, Store};
use bytes::Bytes;
use futures::stream;
use libfuzzer_sys::fuzz_target;
use registry::Digest;

fuzz_target!(|data: &[u8]| {
    read(data);
    world::with(async |store, _| unpack(store, data).await);
});

fn read(data: &[u8]) {
    let mut archive = Archive::new(data);
    let mut taken = 0;
    while let Ok(Some(entry)) = archive.next_entry() {
        if let Kind::File { size } = entry.kind {
            // Every other file is skipped, as an excluded one would be.
            taken += 1;
            if taken % 2 == 0 {
                continue;
            }
            let Ok(read) = copy(&mut archive.by_ref(), &mut sink()) else {
                return;
            };
            assert!(read <= size, "a file has no more bytes than its header says");
            if read < size {
                let after = archive.next_entry();
                assert!(after.is_err(), "nothing comes after a file that was cut off");
            }
        }
    }
}

async fn unpack(store: &Store, data: &[u8]) {
    let digest = Digest::of(data);
    let descriptor = Descriptor::new(
        "application/vnd.oci.image.layer.v1.tar",
        digest.clone(),
        data.len() as u64,
    );
    let bytes = stream::iter([Ok(Bytes::copy_from_slice(data))]);
    let unpacked = store
        .unpack_layer(&digest, &descriptor, bytes, KeepBlob::No)
        .await;
    if let Ok(layer) = unpacked {
        assert!(
            store.layer_folder(&layer).is_dir(),
            "a layer that is there has a folder"
        );
    }
}
