use registry::Manifest;

use super::super::annotations;
use super::*;

fn image(architecture: &str, docker: bool) -> Source {
    let (manifest, config) = if docker {
        (media_type::DOCKER_MANIFEST, media_type::DOCKER_CONFIG)
    } else {
        (media_type::OCI_MANIFEST, media_type::OCI_CONFIG)
    };
    let config = Descriptor::of(config, architecture.as_bytes());
    let raw = RawManifest::from_manifest(&Manifest::new(manifest, config, Vec::new())).unwrap();
    Source {
        reference: format!("localhost:5000/{architecture}:1").parse().unwrap(),
        descriptor: raw
            .descriptor()
            .with_platform(Platform::new("linux", architecture, "")),
        document: raw.parse().unwrap(),
        raw,
    }
}

fn attestation(subject: &Digest) -> Descriptor {
    let mut entry = Descriptor::of(media_type::OCI_MANIFEST, subject.as_str().as_bytes())
        .with_platform(Platform::new("unknown", "unknown", ""));
    entry.set_annotation("vnd.docker.reference.type", "attestation-manifest");
    entry.set_annotation("vnd.docker.reference.digest", subject.to_string());
    entry
}

/// An index of two images, each with an attestation.
fn index() -> Source {
    let images = [image("amd64", false).descriptor, image("arm64", false).descriptor];
    let attestations = images.each_ref().map(|image| attestation(&image.digest));
    let raw = RawManifest::from_index(&index_of(images.into_iter().chain(attestations))).unwrap();
    Source {
        reference: "localhost:5000/both:1".parse().unwrap(),
        descriptor: raw.descriptor(),
        document: raw.parse().unwrap(),
        raw,
    }
}

fn parsed(values: &[&str]) -> Vec<Annotation> {
    let values: Vec<String> = values.iter().map(|value| (*value).to_owned()).collect();
    annotations::parse(&values).unwrap()
}

fn platform(text: &str) -> binfmt::Platform {
    text.parse().unwrap()
}

#[test]
fn a_single_source_stays_as_it_is() {
    let combined = combine(&[index()], &[], true).unwrap();
    assert_eq!(combined.raw, index().raw);
    assert_eq!(combined.entries.len(), 4);
    let single = image("amd64", false);
    let combined = combine(std::slice::from_ref(&single), &[], false).unwrap();
    assert_eq!((&combined.raw, combined.entries.len()), (&single.raw, 1));
    let combined = combine(&[single], &[], true).unwrap();
    assert_eq!(combined.raw.index().unwrap().manifests.len(), 1);
}

#[test]
fn the_type_of_the_index_is_that_of_its_images() {
    for (sources, expected) in [
        (
            [image("amd64", true), image("arm64", true)],
            media_type::DOCKER_INDEX,
        ),
        (
            [image("amd64", true), image("arm64", false)],
            media_type::OCI_INDEX,
        ),
    ] {
        assert_eq!(combine(&sources, &[], true).unwrap().raw.media_type, expected);
    }
}

#[test]
fn what_is_named_twice_is_there_once() {
    let mut again = image("amd64", false);
    again.descriptor.set_annotation("a", "b");
    again.reference = "localhost:5000/elsewhere:1".parse().unwrap();
    let combined = combine(&[index(), again.clone()], &[], true).unwrap();
    let index = combined.raw.index().unwrap();
    assert_eq!(index.manifests.len(), 4);
    assert_eq!(index.manifests[0].annotation("a"), Some("b"));
    assert_eq!(combined.entries[0].from, again.reference);
}

#[test]
fn attestations_follow_their_images() {
    let combined = combine(&[index()], &[], true).unwrap();
    let filtered = filter(combined.clone(), &[platform("linux/arm64/v8")]).unwrap();
    let kept = filtered.raw.index().unwrap().manifests;
    let arm64 = image("arm64", false).descriptor;
    assert_eq!(kept, [arm64.clone(), attestation(&arm64.digest)]);
    assert_eq!(filtered.entries.len(), 2);
    let all = [platform("linux/arm64"), platform("linux/amd64")];
    assert_eq!(filter(combined.clone(), &all).unwrap().raw, combined.raw);
    let error = filter(combined, &[platform("linux/s390x")]).unwrap_err();
    assert_eq!(
        error.to_string(),
        "none of the manifests match the provided platforms, there are: linux/amd64, linux/arm64"
    );
    let single = combine(&[image("amd64", false)], &[], false).unwrap();
    let error = filter(single, &[platform("linux/s390x")]).unwrap_err();
    assert_eq!(
        error.to_string(),
        "input platform linux/amd64 does not match any of the provided platforms"
    );
}

#[test]
fn annotations_are_put_where_they_belong() {
    let annotations = parsed(&[
        "index:i=1",
        "manifest-descriptor[linux/arm64]:d=2",
        "manifest[linux/arm64]:m=3",
    ]);
    let mut combined = combine(&[index()], &annotations, true).unwrap();
    let arm64 = image("arm64", false);
    let manifests = BTreeMap::from([(arm64.raw.digest.clone(), arm64.raw.clone())]);
    let rewritten = rewrite(&mut combined, &manifests, &annotations).unwrap();
    let made = combined.raw.index().unwrap();
    assert_eq!(made.annotations, Some([("i".to_owned(), "1".to_owned())].into()));
    assert_eq!(made.manifests[0], image("amd64", false).descriptor);
    assert_eq!(made.manifests[1].annotation("d"), Some("2"));
    let new = &rewritten[&made.manifests[1].digest];
    assert_ne!(new.digest, arm64.raw.digest);
    assert_eq!(
        new.manifest().unwrap().annotations,
        Some([("m".to_owned(), "3".to_owned())].into())
    );
    assert_eq!(
        made.manifests[3].annotation("vnd.docker.reference.digest"),
        Some(new.digest.as_str())
    );
    assert_eq!(combined.entries[1].descriptor, made.manifests[1]);

    let docker = image("amd64", true);
    let annotations = parsed(&["m=1"]);
    let mut combined = combine(std::slice::from_ref(&docker), &annotations, true).unwrap();
    let manifests = BTreeMap::from([(docker.raw.digest.clone(), docker.raw)]);
    assert!(matches!(
        rewrite(&mut combined, &manifests, &annotations),
        Err(CombineError::DockerManifest { .. })
    ));
}
