//! Compiles the `.proto` files without `protoc`.
//!
//! `FileSend` is compiled by itself: its messages stay undecoded frames (see `frames.rs`).

use std::env;
use std::path::PathBuf;

use prost::Message as _;
use prost_types::FileDescriptorSet;
use prost_types::field_descriptor_proto::{Label, Type};
use tonic_prost_build::Builder;

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

    let files = protox::compile(FILES, [ROOT])?;
    // For the details of errors that carry messages as JSON.
    std::fs::write(out.join("wire.bin"), files.encode_to_vec())?;
    with_json(tonic_prost_build::configure(), &files)
        .btree_map(".")
        .bytes(".")
        .out_dir(&out)
        .include_file("wire.rs")
        .compile_fds(files)?;

    let frames = out.join("frames");
    std::fs::create_dir_all(&frames)?;
    tonic_prost_build::configure()
        .codec_path("crate::frames::FrameCodec")
        .extern_path(".moby.filesync.v1.Frame", "::bytes::Bytes")
        .out_dir(&frames)
        .compile_fds(protox::compile(["filesend.proto"], [ROOT])?)?;
    Ok(())
}

/// Operations as JSON, as provenance tells them: fields by the names of the `.proto`, left out when empty.
fn with_json(mut builder: Builder, files: &FileDescriptorSet) -> Builder {
    let operations = files.file.iter().filter(|file| file.package() == "pb");
    for message in operations.flat_map(|file| &file.message_type) {
        let path = format!(".pb.{}", message.name());
        builder = builder.message_attribute(&path, "#[derive(::serde::Serialize)]");
        for field in &message.field {
            if let (Some(index), false) = (field.oneof_index, field.proto3_optional()) {
                let group = message.oneof_decl.get(usize::try_from(index).unwrap_or_default());
                let group = group.map_or("", |group| group.name());
                let name = match field.name() {
                    "byID" => "byId",
                    name => name,
                };
                builder = builder.field_attribute(
                    format!("{path}.{group}.{}", field.name()),
                    format!("#[serde(rename = \"{name}\")]"),
                );
                continue;
            }
            let with = match (field.r#type(), field.label()) {
                (Type::Bytes, Label::Repeated) => ", serialize_with = \"crate::json::several_bytes\"",
                (Type::Bytes, _) => ", serialize_with = \"crate::json::bytes\"",
                _ => "",
            };
            builder = builder.field_attribute(
                format!("{path}.{}", field.name()),
                format!(
                    "#[serde(rename = \"{}\", skip_serializing_if = \"crate::json::is_default\"{with})]",
                    field.name()
                ),
            );
        }
        for group in &message.oneof_decl {
            let of_group = format!("{path}.{}", group.name());
            builder = builder
                .type_attribute(of_group, "#[derive(::serde::Serialize)]")
                // Of the group's own field: all others have their names.
                .message_attribute(&path, "#[serde(rename_all = \"PascalCase\")]");
        }
    }
    builder
}
