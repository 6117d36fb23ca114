//! Any bytes as the tar stream of a layer: read entry after entry, data and all.
#![no_main]

use std::io::{Read as _, copy, sink};

use builderd::store::tar::{Archive, Kind};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let mut archive = Archive::new(data);
    let mut taken = 0;
    while let Ok(Some(entry)) = archive.next_entry() {
        if let Kind::File { size } = entry.kind {
            // Every other file is skipped, as an excluded one would be.
            taken += 1;
            if taken % 2 == 0 {
                continue;
            }
            match copy(&mut archive.by_ref(), &mut sink()) {
                Ok(read) => assert_eq!(read, size, "a file has as many bytes as its header says"),
                Err(_) => return,
            }
        }
    }
});
