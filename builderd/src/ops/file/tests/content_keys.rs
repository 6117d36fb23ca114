//! Cache keys by content.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;

use super::super::*;
use super::{Fixture, action, copy, source_tree, write};

#[test]
fn the_content_key_depends_on_what_is_taken_and_on_nothing_else() {
    let fixture = Fixture::new();
    let base = fixture.layer(|root| write(root, "b", ""));
    let op = |copy: pb::FileActionCopy| pb::FileOp {
        actions: vec![action(0, 1, 0, Action::Copy(copy))],
    };
    let key = |op: &pb::FileOp, source: &Snapshot| {
        content_key(op, &[base.clone(), source.clone()], &fixture.store)
            .unwrap()
            .unwrap()
    };
    let source = fixture.layer(source_tree);
    let changed = |change: &dyn Fn(&Path)| {
        fixture.layer(|root| {
            source_tree(root);
            change(root);
        })
    };
    let dir = op(copy("dir", "/x/"));
    let original = key(&dir, &source);
    assert_eq!(
        key(&dir, &changed(&|_| {})),
        original,
        "times and layers do not count"
    );
    assert_eq!(
        key(&dir, &changed(&|root| write(root, "a.txt", "other"))),
        original,
        "other files do not count"
    );
    let hidden = fixture.layer_on(&changed(&|root| write(root, "dir/sub/extra", "")), |root| {
        fs::create_dir_all(root.join("dir/sub")).unwrap();
        let path = root.join("dir/sub/extra");
        rustix::fs::mknodat(
            rustix::fs::CWD,
            path,
            rustix::fs::FileType::CharacterDevice,
            rustix::fs::Mode::empty(),
            0,
        )
        .unwrap();
    });
    assert_eq!(
        key(&dir, &hidden),
        original,
        "how the files came to be does not count"
    );
    type Change<'a> = (&'a str, &'a dyn Fn(&Path));
    let differing: [Change<'_>; 5] = [
        ("bytes", &|root| write(root, "dir/c.txt", "X")),
        ("mode", &|root| {
            fs::set_permissions(root.join("dir/sub"), fs::Permissions::from_mode(0o700)).unwrap()
        }),
        ("names", &|root| {
            fs::rename(root.join("dir/sub/d.md"), root.join("dir/sub/e.md")).unwrap()
        }),
        ("additions", &|root| write(root, "dir/new", "")),
        ("links", &|root| symlink("x", root.join("dir/l")).unwrap()),
    ];
    for (name, change) in differing {
        assert_ne!(key(&dir, &changed(change)), original, "{name}");
    }
    assert_ne!(
        key(&op(copy("dir", "/y/")), &source),
        original,
        "the operation counts"
    );
    let only_md = op(pb::FileActionCopy {
        include_patterns: vec!["sub".into()],
        ..copy("dir", "/x/")
    });
    let filtered = key(&only_md, &source);
    assert_eq!(
        key(&only_md, &changed(&|root| write(root, "dir/c.txt", "X"))),
        filtered
    );
    assert_ne!(
        key(&only_md, &changed(&|root| write(root, "dir/sub/d.md", "X"))),
        filtered
    );

    let missing = content_key(
        &op(copy("/nosuch", "/x")),
        &[base.clone(), source.clone()],
        &fixture.store,
    );
    assert_eq!(missing.unwrap_err().to_string(), "\"/nosuch\": not found");
    let mkdir = pb::FileActionMkDir {
        path: "/d".into(),
        mode: 0o755,
        timestamp: -1,
        ..Default::default()
    };
    let no_source = pb::FileOp {
        actions: vec![action(0, -1, 0, Action::Mkdir(mkdir))],
    };
    assert_eq!(content_key(&no_source, &[base], &fixture.store).unwrap(), None);
}

#[test]
fn a_recorded_digest_stands_for_the_bytes() {
    let fixture = Fixture::new();
    let source = fixture.layer(source_tree);
    let op = pb::FileOp {
        actions: vec![action(-1, 0, 0, Action::Copy(copy("a.txt", "/x")))],
    };
    let key = || content_key(&op, std::slice::from_ref(&source), &fixture.store).unwrap();
    let read = key();
    let layer = &source.layers()[0];
    crate::store::checksum::record(
        &fixture.store,
        layer,
        [(Path::new("/a.txt"), blake3::hash(b"A").as_bytes())],
    );
    assert_eq!(key(), read, "the recorded digest is that of the bytes");
    crate::store::checksum::record(&fixture.store, layer, [(Path::new("/a.txt"), &[7; 32])]);
    assert_ne!(key(), read, "it is what is used");
}
