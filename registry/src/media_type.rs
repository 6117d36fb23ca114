//! The media types of images, in OCI's words and in Docker's older ones.

pub const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
pub const OCI_EMPTY: &str = "application/vnd.oci.empty.v1+json";
pub const OCI_LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
pub const OCI_LAYER_GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
pub const OCI_LAYER_ZSTD: &str = "application/vnd.oci.image.layer.v1.tar+zstd";

pub const DOCKER_INDEX: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
pub const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";
pub const DOCKER_LAYER: &str = "application/vnd.docker.image.rootfs.diff.tar";
pub const DOCKER_LAYER_GZIP: &str = "application/vnd.docker.image.rootfs.diff.tar.gzip";
pub const DOCKER_LAYER_ZSTD: &str = "application/vnd.docker.image.rootfs.diff.tar.zstd";
pub const DOCKER_LAYER_FOREIGN: &str = "application/vnd.docker.image.rootfs.foreign.diff.tar";
pub const DOCKER_LAYER_FOREIGN_GZIP: &str = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip";
pub const OCI_LAYER_FOREIGN: &str = "application/vnd.oci.image.layer.nondistributable.v1.tar";
pub const OCI_LAYER_FOREIGN_GZIP: &str = "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip";
pub const OCI_LAYER_FOREIGN_ZSTD: &str = "application/vnd.oci.image.layer.nondistributable.v1.tar+zstd";

/// What a manifest request accepts, best first.
pub const MANIFESTS: [&str; 4] = [OCI_INDEX, OCI_MANIFEST, DOCKER_INDEX, DOCKER_MANIFEST];

/// The manifest formats from before 2016, which nothing reads any more.
pub const DOCKER_SCHEMA1: [&str; 2] = [
    "application/vnd.docker.distribution.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v1+prettyjws",
];

pub fn is_index(media_type: &str) -> bool {
    matches!(media_type, OCI_INDEX | DOCKER_INDEX)
}

pub fn is_manifest(media_type: &str) -> bool {
    matches!(media_type, OCI_MANIFEST | DOCKER_MANIFEST)
}

/// True for layers that registries are not supposed to hand out (old Windows bases).
pub fn is_foreign_layer(media_type: &str) -> bool {
    matches!(media_type, DOCKER_LAYER_FOREIGN | DOCKER_LAYER_FOREIGN_GZIP)
        || media_type.starts_with("application/vnd.oci.image.layer.nondistributable.")
}

/// How the bytes of a layer blob are packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Compression {
    #[serde(rename = "uncompressed")]
    None,
    Gzip,
    Zstd,
}

impl Compression {
    /// What the media type of a layer says; `None` if it is no file system layer.
    pub fn of_layer(media_type: &str) -> Option<Self> {
        let oci = media_type
            .strip_prefix(OCI_LAYER_FOREIGN)
            .or_else(|| media_type.strip_prefix(OCI_LAYER));
        if let Some(suffix) = oci {
            return match suffix {
                "" => Some(Self::None),
                "+gzip" => Some(Self::Gzip),
                "+zstd" => Some(Self::Zstd),
                _ => None,
            };
        }
        match media_type {
            DOCKER_LAYER | DOCKER_LAYER_FOREIGN => Some(Self::None),
            DOCKER_LAYER_GZIP | DOCKER_LAYER_FOREIGN_GZIP => Some(Self::Gzip),
            DOCKER_LAYER_ZSTD => Some(Self::Zstd),
            _ => None,
        }
    }
}

/// Which family of media types an image is written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    Oci,
    Docker,
}

impl Dialect {
    pub const fn index(self) -> &'static str {
        match self {
            Self::Oci => OCI_INDEX,
            Self::Docker => DOCKER_INDEX,
        }
    }

    pub const fn manifest(self) -> &'static str {
        match self {
            Self::Oci => OCI_MANIFEST,
            Self::Docker => DOCKER_MANIFEST,
        }
    }

    pub const fn config(self) -> &'static str {
        match self {
            Self::Oci => OCI_CONFIG,
            Self::Docker => DOCKER_CONFIG,
        }
    }

    pub const fn layer(self, compression: Compression) -> &'static str {
        match (self, compression) {
            (Self::Oci, Compression::None) => OCI_LAYER,
            (Self::Oci, Compression::Gzip) => OCI_LAYER_GZIP,
            (Self::Oci, Compression::Zstd) => OCI_LAYER_ZSTD,
            (Self::Docker, Compression::None) => DOCKER_LAYER,
            (Self::Docker, Compression::Gzip) => DOCKER_LAYER_GZIP,
            (Self::Docker, Compression::Zstd) => DOCKER_LAYER_ZSTD,
        }
    }

    /// For layers that registries are not supposed to hand out. Docker has no word for zstd ones.
    pub const fn foreign_layer(self, compression: Compression) -> &'static str {
        match (self, compression) {
            (Self::Oci, Compression::None) => OCI_LAYER_FOREIGN,
            (Self::Oci, Compression::Gzip) => OCI_LAYER_FOREIGN_GZIP,
            (_, Compression::Zstd) => OCI_LAYER_FOREIGN_ZSTD,
            (Self::Docker, Compression::None) => DOCKER_LAYER_FOREIGN,
            (Self::Docker, Compression::Gzip) => DOCKER_LAYER_FOREIGN_GZIP,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_compression_of_every_layer_type_is_known() {
        for dialect in [Dialect::Oci, Dialect::Docker] {
            for compression in [Compression::None, Compression::Gzip, Compression::Zstd] {
                assert_eq!(
                    Compression::of_layer(dialect.layer(compression)),
                    Some(compression)
                );
                let foreign = dialect.foreign_layer(compression);
                assert!(is_foreign_layer(foreign));
                assert_eq!(Compression::of_layer(foreign), Some(compression));
            }
        }
        assert_eq!(Compression::of_layer("application/vnd.in-toto+json"), None);
    }
}
