use super::*;

fn git(text: &str) -> GitReference {
    match Address::parse(text) {
        Ok(Some(Address::Git(reference))) => *reference,
        other => panic!("{text}: {other:?}"),
    }
}

#[test]
fn repositories_are_told_from_files_and_paths() {
    for (text, remote, reference, subfolder) in [
        (
            "https://example.com/foo.git",
            "https://example.com/foo.git",
            "",
            "",
        ),
        (
            "https://example.com/foo.git#v1",
            "https://example.com/foo.git",
            "v1",
            "",
        ),
        (
            "https://u:p@example.com:8443/a/foo.git#release/1.2:sub/../dir/",
            "https://u:p@example.com:8443/a/foo.git",
            "release/1.2",
            "dir",
        ),
        (
            "HTTP://example.com/foo.git#:sub",
            "http://example.com/foo.git",
            "",
            "sub",
        ),
        ("git://example.com/foo", "git://example.com/foo", "", ""),
        (
            "ssh://git@example.com/foo#main",
            "ssh://git@example.com/foo",
            "main",
            "",
        ),
        ("git@example.com:a/b", "git@example.com:a/b", "", ""),
        (
            "git@example.com:a/b.git?subdir=/x&ref=v1.0.0",
            "git@example.com:a/b.git",
            "v1.0.0",
            "x",
        ),
        ("github.com/a/b#main:c", "https://github.com/a/b", "main", "c"),
        (
            "https://example.com/foo.git?tag=v1",
            "https://example.com/foo.git",
            "refs/tags/v1",
            "",
        ),
        (
            "https://example.com/foo.git?branch=v1&subdir=a%20b",
            "https://example.com/foo.git",
            "refs/heads/v1",
            "a b",
        ),
        (
            "https://example.com/foo.git?ref=a#a:b",
            "https://example.com/foo.git",
            "a",
            "b",
        ),
    ] {
        let parsed = git(text);
        assert_eq!(
            (
                parsed.remote.as_str(),
                parsed.reference.as_str(),
                parsed.subfolder.as_str()
            ),
            (remote, reference, subfolder),
            "{text}"
        );
    }
    for text in [
        "https://example.com/foo",
        "https://example.com/foo.git/",
        "https://example.com/foo.git.bar",
        "http://example.com/foo.git:#branch",
        "https://example.com/",
    ] {
        assert_eq!(
            Address::parse(text),
            Ok(Some(Address::Http(text.to_owned()))),
            "{text}"
        );
    }
    for text in [
        "./.git",
        ".git",
        "a/b.git",
        "../x.git",
        "ftp://example.com/x.git",
        "ext::sh -c true",
        "file:///a/b.git",
        "-u@example.com:x",
        "git@-oProxyCommand=x:y",
        "a@b",
        "",
    ] {
        assert_eq!(Address::parse(text), Ok(None), "{text}");
    }
}

#[test]
fn a_query_says_what_is_wanted() {
    let all =
        git("https://e.com/f.git?keep-git-dir&submodules=0&mtime=commit&checksum=ab12&fetch-by-commit=true");
    assert_eq!(all.keep_git_dir, Some(true));
    assert_eq!(all.submodules, Some(false));
    assert_eq!(all.mtime, Some(Mtime::Commit));
    assert_eq!(all.checksum.as_deref(), Some("ab12"));
    assert!(all.fetch_by_commit && !all.ssh && !all.like_a_path);
    for (query, problem) in [
        ("ref=", "query \"ref\" has no value"),
        ("ref=a&ref=b", "query \"ref\" has multiple values"),
        ("ref=a#b", "ref conflicts: \"b\" vs \"a\""),
        ("ref=a&tag=b", "ref conflicts: \"a\" vs \"refs/tags/b\""),
        ("subdir=/a#:b", "subdir conflicts: \"b\" vs \"a\""),
        ("tag=a&branch=b", "branch conflicts with tag"),
        ("keep-git-dir=x", "invalid keep-git-dir value: \"x\""),
        (
            "mtime=x",
            "invalid mtime value: \"x\" (must be \"checkout\" or \"commit\")",
        ),
        ("nope=1", "unexpected query \"nope\""),
    ] {
        let parsed = Address::parse(&format!("https://e.com/f.git?{query}"));
        assert_eq!(parsed.unwrap_err().to_string(), problem, "{query}");
    }
}

#[test]
fn one_repository_has_one_name_whatever_way_it_is_reached() {
    for text in [
        "https://e.com/a/b.git",
        "https://me:secret@e.com/a//b.git",
        "git@e.com:a/b.git",
        "ssh://git@e.com/a/b.git",
    ] {
        assert_eq!(git(text).identity, "e.com/a/b.git", "{text}");
    }
}

#[test]
fn credentials_are_not_shown() {
    for (text, shown) in [
        ("https://me:secret@e.com/a.git#x", "https://e.com/a.git#x"),
        ("https://token@e.com", "https://e.com"),
        ("https://e.com/a@b", "https://e.com/a@b"),
        ("ssh://git@e.com/a", "ssh://git@e.com/a"),
        ("ssh://git:secret@e.com/a", "ssh://e.com/a"),
        ("git@e.com:a", "git@e.com:a"),
        ("folder", "folder"),
    ] {
        assert_eq!(without_credentials(text), shown);
    }
}

#[test]
fn files_are_called_by_the_end_of_their_path() {
    for (url, name) in [
        ("https://e.com/a/b.tar.gz?x=/y", Some("b.tar.gz")),
        ("https://e.com/a%20b", Some("a b")),
        ("https://e.com/a/", Some("a")),
        ("https://e.com/", None),
        ("https://e.com", None),
        ("https://e.com/a/%2e%2e", None),
        ("https://e.com/a%2f..%2fb", Some("b")),
        ("https://e.com/%zz", None),
    ] {
        assert_eq!(file_name(url).as_deref(), name, "{url}");
    }
}
