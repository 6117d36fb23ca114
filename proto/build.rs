//! Compiles the `.proto` files without `protoc`.
//!
//! `FileSend` is compiled by itself: its messages stay undecoded frames (see `frames.rs`).

use std::env;
use std::path::PathBuf;

type Failure = Box<dyn std::error::Error>;

const ROOT: &str = "proto";

const FILES: &[&str] = &[
    "caps.proto",
    "content.proto",
    "control.proto",
    "exporter.proto",
    "filesync.proto",
    "fsutil/transfer.proto",
    "gateway.proto",
    "google/rpc/status.proto",
    "ops.proto",
    "policysession.proto",
    "secrets.proto",
    "sourcepolicy.proto",
    "ssh.proto",
    "upload.proto",
    "worker.proto",
];

fn main() -> Result<(), Failure> {
    println!("cargo:rerun-if-changed={ROOT}");
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or("OUT_DIR is not set")?);

    tonic_prost_build::configure()
        .btree_map(".")
        .bytes(".")
        .out_dir(&out)
        .include_file("wire.rs")
        .compile_fds(protox::compile(FILES, [ROOT])?)?;

    let frames = out.join("frames");
    std::fs::create_dir_all(&frames)?;
    tonic_prost_build::configure()
        .codec_path("crate::frames::FrameCodec")
        .extern_path(".moby.filesync.v1.Frame", "::bytes::Bytes")
        .out_dir(&frames)
        .compile_fds(protox::compile(["filesend.proto"], [ROOT])?)?;
    Ok(())
}
