//! The structures that templates see, with the fields of the OCI specification in Go: what is not listed here is not
//! shown, and the order here is the order of the output.

use serde_json::Value;

use crate::format::{Data, Field, Nil, field, map, record};

#[derive(Clone, Copy, Debug)]
pub enum Shape {
    Text,
    Time,
    Number,
    Flag,
    /// Whatever JSON is there.
    Any,
    /// Absent is `null`, unlike an absent structure, which has all its fields.
    Pointer(&'static Self),
    List(&'static Self),
    Map(&'static Self),
    /// With the name of its type.
    Struct(&'static str, &'static [FieldShape]),
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

use Shape::{Any, Flag, List, Map, Number, Pointer, Struct, Text, Time};

const TEXTS: Shape = List(&Text);
const TEXT_MAP: Shape = Map(&Text);
/// A set is a map of empty structures.
const SET: Shape = Map(&Struct("struct {}", &[]));

const PLATFORM: Shape = Struct(
    "v1.Platform",
    &[
        always("Architecture", "architecture", Text),
        always("OS", "os", Text),
        unless_empty("OSVersion", "os.version", Text),
        unless_empty("OSFeatures", "os.features", TEXTS),
        unless_empty("Variant", "variant", Text),
    ],
);

pub const DESCRIPTOR: Shape = Struct(
    "v1.Descriptor",
    &[
        always("MediaType", "mediaType", Text),
        always("Digest", "digest", Text),
        always("Size", "size", Number),
        unless_empty("URLs", "urls", TEXTS),
        unless_empty("Annotations", "annotations", TEXT_MAP),
        unless_empty("Data", "data", Text),
        unless_empty("Platform", "platform", Pointer(&PLATFORM)),
        unless_empty("ArtifactType", "artifactType", Text),
    ],
);

/// An index together with its own digest and size.
pub const INDEX: Shape = Struct(
    "v1.Index",
    &[
        always("SchemaVersion", "schemaVersion", Number),
        unless_empty("MediaType", "mediaType", Text),
        always("Digest", "digest", Text),
        always("Size", "size", Number),
        always("Manifests", "manifests", List(&DESCRIPTOR)),
        unless_empty("Annotations", "annotations", TEXT_MAP),
    ],
);

const RUN_CONFIG: Shape = Struct(
    "v1.ImageConfig",
    &[
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
    ],
);

pub const IMAGE: Shape = Struct(
    "v1.Image",
    &[
        unless_empty("Created", "created", Pointer(&Time)),
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
            Struct(
                "v1.RootFS",
                &[always("Type", "type", Text), always("DiffIDs", "diff_ids", TEXTS)],
            ),
        ),
        unless_empty(
            "History",
            "history",
            List(&Struct(
                "v1.History",
                &[
                    unless_empty("Created", "created", Pointer(&Time)),
                    unless_empty("CreatedBy", "created_by", Text),
                    unless_empty("Author", "author", Text),
                    unless_empty("Comment", "comment", Text),
                    unless_empty("EmptyLayer", "empty_layer", Flag),
                ],
            )),
        ),
    ],
);

pub const BUILD_INFO: Shape = Struct(
    "BuildInfo",
    &[
        unless_empty("Frontend", "frontend", Text),
        unless_empty("Attrs", "attrs", Map(&Pointer(&Text))),
        unless_empty(
            "Sources",
            "sources",
            List(&Struct(
                "Source",
                &[
                    unless_empty("Type", "type", Text),
                    unless_empty("Ref", "ref", Text),
                    unless_empty("Alias", "alias", Text),
                    unless_empty("Pin", "pin", Text),
                ],
            )),
        ),
        unless_empty("Deps", "deps", Any),
    ],
);

impl Shape {
    /// A value of this shape. What has another shape counts as absent.
    pub fn read(self, value: &Value) -> Data {
        match (self, value) {
            (Any, value) => Data::any(value),
            (Text, Value::String(text)) => text.into(),
            (Time, Value::String(text)) => Data::time(text),
            (Number, Value::Number(number)) => match number.as_i64() {
                Some(number) => Data::Int(number),
                None => Data::Float(number.as_f64().unwrap_or_default()),
            },
            (Flag, Value::Bool(flag)) => Data::Flag(*flag),
            (Pointer(_), Value::Null) => Data::Nil(Nil::Pointer),
            (Pointer(shape), value) => shape.read(value),
            (List(shape), Value::Array(items)) => Data::list(items.iter().map(|item| shape.read(item))),
            (Map(shape), Value::Object(entries)) => map(
                entries.iter().map(|(key, value)| (key, shape.read(value))),
                shape.read(&Value::Null),
            ),
            (Struct(name, fields), Value::Object(entries)) => {
                structure(name, fields, |key| entries.get(key).unwrap_or(&Value::Null))
            }
            (Struct(name, fields), _) => structure(name, fields, |_| &Value::Null),
            (Text, _) => "".into(),
            (Time, _) => Data::Nil(Nil::Pointer),
            (Number, _) => Data::Int(0),
            (Flag, _) => Data::Flag(false),
            (List(_), _) => Data::Nil(Nil::List),
            (Map(_), _) => Data::Nil(Nil::Map),
        }
    }
}

fn structure<'a>(type_name: &'static str, fields: &[FieldShape], get: impl Fn(&str) -> &'a Value) -> Data {
    let fields = fields.iter().map(|shape| Field {
        name: shape.name,
        key: shape.key,
        omit_empty: shape.omit_empty,
        value: shape.shape.read(get(shape.key)),
    });
    record(type_name, fields)
}

/// What stands behind the dot of a template. The last two are for templates only.
pub fn root(name: &str, manifest: Data, image: Data, build_info: Data, provenance: Data, sbom: Data) -> Data {
    record(
        "image",
        [
            field("Name", "name", name).omit_empty(),
            field("Manifest", "manifest", manifest).omit_empty(),
            field("Image", "image", image).omit_empty(),
            field("BuildInfo", "buildinfo", build_info).omit_empty(),
            Field::template_only("Provenance", provenance),
            Field::template_only("SBOM", sbom),
        ],
    )
}

pub fn provenance(slsa: Data) -> Data {
    record("provenance", [field("SLSA", "SLSA", slsa).omit_empty()])
}

pub fn sbom(spdx: Data, additional: Data) -> Data {
    record(
        "sbom",
        [
            field("SPDX", "SPDX", spdx).omit_empty(),
            field("AdditionalSPDXs", "AdditionalSPDXs", additional).omit_empty(),
        ],
    )
}

/// Stands for provenance and SBOM where there are none.
pub fn no_document() -> Data {
    record(
        "document",
        [
            field("SLSA", "SLSA", Data::Nil(Nil::Any)).omit_empty(),
            field("SPDX", "SPDX", Data::Nil(Nil::Any)).omit_empty(),
            field("AdditionalSPDXs", "AdditionalSPDXs", Data::Nil(Nil::List)).omit_empty(),
        ],
    )
}
