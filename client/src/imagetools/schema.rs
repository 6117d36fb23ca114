//! The structures that templates see, with the fields of the OCI specification in Go: what is not listed here is not
//! shown, and the order here is the order of the output.

use std::collections::BTreeMap;

use serde_json::Value;

use super::data::{Data, Field};

#[derive(Clone, Copy, Debug)]
pub enum Shape {
    Text,
    Number,
    Flag,
    /// Whatever JSON is there.
    Any,
    /// Absent is `null`, unlike an absent structure, which has all its fields.
    Pointer(&'static Self),
    List(&'static Self),
    Map(&'static Self),
    Struct(&'static [FieldShape]),
}

#[derive(Clone, Copy, Debug)]
pub struct FieldShape {
    name: &'static str,
    key: &'static str,
    omit_empty: bool,
    shape: Shape,
}

const fn always(name: &'static str, key: &'static str, shape: Shape) -> FieldShape {
    FieldShape {
        name,
        key,
        omit_empty: false,
        shape,
    }
}

const fn unless_empty(name: &'static str, key: &'static str, shape: Shape) -> FieldShape {
    FieldShape {
        name,
        key,
        omit_empty: true,
        shape,
    }
}

use Shape::{Any, Flag, List, Map, Number, Pointer, Struct, Text};

const TEXTS: Shape = List(&Text);
const TEXT_MAP: Shape = Map(&Text);
/// A set is a map of empty structures.
const SET: Shape = Map(&Struct(&[]));

const PLATFORM: Shape = Struct(&[
    always("Architecture", "architecture", Text),
    always("OS", "os", Text),
    unless_empty("OSVersion", "os.version", Text),
    unless_empty("OSFeatures", "os.features", TEXTS),
    unless_empty("Variant", "variant", Text),
]);

pub const DESCRIPTOR: Shape = Struct(&[
    always("MediaType", "mediaType", Text),
    always("Digest", "digest", Text),
    always("Size", "size", Number),
    unless_empty("URLs", "urls", TEXTS),
    unless_empty("Annotations", "annotations", TEXT_MAP),
    unless_empty("Data", "data", Text),
    unless_empty("Platform", "platform", Pointer(&PLATFORM)),
    unless_empty("ArtifactType", "artifactType", Text),
]);

/// An index together with its own digest and size.
pub const INDEX: Shape = Struct(&[
    always("SchemaVersion", "schemaVersion", Number),
    unless_empty("MediaType", "mediaType", Text),
    always("Digest", "digest", Text),
    always("Size", "size", Number),
    always("Manifests", "manifests", List(&DESCRIPTOR)),
    unless_empty("Annotations", "annotations", TEXT_MAP),
]);

const RUN_CONFIG: Shape = Struct(&[
    unless_empty("User", "User", Text),
    unless_empty("ExposedPorts", "ExposedPorts", SET),
    unless_empty("Env", "Env", TEXTS),
    unless_empty("Entrypoint", "Entrypoint", TEXTS),
    unless_empty("Cmd", "Cmd", TEXTS),
    unless_empty("Volumes", "Volumes", SET),
    unless_empty("WorkingDir", "WorkingDir", Text),
    unless_empty("Labels", "Labels", TEXT_MAP),
    unless_empty("StopSignal", "StopSignal", Text),
    unless_empty("ArgsEscaped", "ArgsEscaped", Flag),
]);

pub const IMAGE: Shape = Struct(&[
    unless_empty("Created", "created", Pointer(&Text)),
    unless_empty("Author", "author", Text),
    always("Architecture", "architecture", Text),
    always("OS", "os", Text),
    unless_empty("OSVersion", "os.version", Text),
    unless_empty("OSFeatures", "os.features", TEXTS),
    unless_empty("Variant", "variant", Text),
    unless_empty("Config", "config", RUN_CONFIG),
    always(
        "RootFS",
        "rootfs",
        Struct(&[always("Type", "type", Text), always("DiffIDs", "diff_ids", TEXTS)]),
    ),
    unless_empty(
        "History",
        "history",
        List(&Struct(&[
            unless_empty("Created", "created", Pointer(&Text)),
            unless_empty("CreatedBy", "created_by", Text),
            unless_empty("Author", "author", Text),
            unless_empty("Comment", "comment", Text),
            unless_empty("EmptyLayer", "empty_layer", Flag),
        ])),
    ),
]);

pub const BUILD_INFO: Shape = Struct(&[
    unless_empty("Frontend", "frontend", Text),
    unless_empty("Attrs", "attrs", Map(&Pointer(&Text))),
    unless_empty(
        "Sources",
        "sources",
        List(&Struct(&[
            unless_empty("Type", "type", Text),
            unless_empty("Ref", "ref", Text),
            unless_empty("Alias", "alias", Text),
            unless_empty("Pin", "pin", Text),
        ])),
    ),
    unless_empty("Deps", "deps", Any),
]);

impl Shape {
    /// A value of this shape. What has another shape counts as absent.
    pub fn read(self, value: &Value) -> Data {
        match (self, value) {
            (Any, value) => Data::any(value),
            (Text, Value::String(text)) => Data::Text(text.clone()),
            (Number, Value::Number(number)) => Data::Number(number.clone()),
            (Flag, Value::Bool(flag)) => Data::Flag(*flag),
            (Pointer(_), Value::Null) => Data::Null,
            (Pointer(shape), value) => shape.read(value),
            (List(shape), Value::Array(items)) => {
                Data::List(items.iter().map(|item| shape.read(item)).collect())
            }
            (Map(shape), Value::Object(entries)) => Data::Map(
                entries
                    .iter()
                    .map(|(key, value)| (key.clone(), shape.read(value)))
                    .collect(),
            ),
            (Struct(fields), Value::Object(entries)) => {
                structure(fields, |key| entries.get(key).unwrap_or(&Value::Null))
            }
            (Struct(fields), _) => structure(fields, |_| &Value::Null),
            (Text, _) => Data::Text(String::new()),
            (Number, _) => Data::Number(0.into()),
            (Flag, _) => Data::Flag(false),
            (List(_) | Map(_), _) => Data::Null,
        }
    }
}

fn structure<'a>(fields: &[FieldShape], get: impl Fn(&str) -> &'a Value) -> Data {
    let fields = fields.iter().map(|field| Field {
        name: field.name,
        key: field.key,
        omit_empty: field.omit_empty,
        value: field.shape.read(get(field.key)),
    });
    Data::Struct(fields.collect())
}

/// What stands behind the dot of a template.
pub fn root(name: &str, manifest: Data, image: Data, build_info: Data) -> Data {
    let field = |name, key, value| Field {
        name,
        key,
        omit_empty: true,
        value,
    };
    Data::Struct(vec![
        field("Name", "name", Data::Text(name.to_owned())),
        field("Manifest", "manifest", manifest),
        field("Image", "image", image),
        field("BuildInfo", "buildinfo", build_info),
    ])
}

/// One value for one platform, a map for several.
pub fn by_platform(mut values: BTreeMap<String, Data>, platforms: usize) -> Data {
    if platforms > 1 {
        return Data::Map(values);
    }
    values.pop_first().map_or(Data::Null, |(_, value)| value)
}
