use super::*;

#[test]
fn an_ignore_file_is_cleaned_line_by_line() {
    let text =
        "\u{feff}# comment\nnode_modules/\n  /target  \r\n\n#x\n!keep/./me\n! /spaced\n/\n a#b \n../up\n!\n";
    assert_eq!(
        read_ignore_file(text),
        [
            "node_modules",
            "target",
            "!keep/me",
            "!spaced",
            "/",
            "a#b",
            "../up",
            "!"
        ]
    );
}

#[test]
fn paths_are_cleaned_as_go_does() {
    for (path, expected) in [
        ("", "."),
        ("/", "/"),
        ("a//b/./c/", "a/b/c"),
        ("a/../b", "b"),
        ("../../a", "../../a"),
        ("/../a", "/a"),
        ("a/..", "."),
        ("./a", "a"),
    ] {
        assert_eq!(clean(path), expected, "{path:?}");
    }
}

#[test]
fn single_patterns() {
    for (pattern, path, expected) in [
        ("**", "file", true),
        ("**", "dir/file", true),
        ("**/", "file", true),
        ("**/**", "dir/file", true),
        ("dir/**", "dir/file", true),
        ("dir/**", "dir", false),
        ("dir/**", "dir/dir2/file", true),
        ("**/dir", "dir", true),
        ("**/dir", "dir/file", true),
        ("**/dir2/*", "dir/dir2/file", true),
        ("**/dir2/*", "dir/dir2/dir2/file", true),
        ("**/dir2/**", "dir/dir2/dir2/file", true),
        ("**file", "file", true),
        ("**file", "dir/file", true),
        ("**file", "a.file", true),
        ("**/file", "a.file", false),
        ("**/file", "dir/file", true),
        ("**/file*", "dir/file.txt", true),
        ("**/file*txt", "dir/dir/file.txt", true),
        ("**/file*.txt*", "dir/dir/file.txt", true),
        ("**/**/*.txt", "dir/dir/file.txt", true),
        ("**/**/*.txt2", "dir/dir/file.txt", false),
        ("**/*.txt", "file.txt", true),
        ("**/**/*.txt", "file.txt", true),
        ("a**/*.txt", "a/file.txt", true),
        ("a**/*.txt", "a/dir/dir/file.txt", true),
        ("a/*.txt", "a/dir/file.txt", false),
        ("a/*.txt", "a/file.txt", true),
        ("a[b-d]e", "ae", false),
        ("a[b-d]e", "ace", true),
        ("a[^b-d]e", "aze", true),
        ("a[!b]e", "abe", true),
        ("a[!b]e", "aze", false),
        (".*", ".foo", true),
        (".*", "foo", false),
        ("abc.def", "abcdef", false),
        ("abc.def", "abcZdef", false),
        ("abc?def", "abcZdef", true),
        ("a\\*b", "a*b", true),
        ("a\\b", "ab", true),
        ("(foo)", "(foo)", true),
        ("a.|)$(}+{bc", "a.|)$(}+{bc", true),
        ("foo", "foo/bar/baz", true),
        ("foo/bar", "foo", false),
        ("*", "foo/bar", true),
        ("*.md", "a/b.md", false),
        ("dist/**/proxy.py-2.4.0", "dist/a/b/proxy.py-2.4.0", true),
        ("docs", "docs2", false),
        ("日本", "日本/語", true),
    ] {
        let matcher = PatternMatcher::new([pattern]).unwrap();
        assert_eq!(
            matcher.matches_or_parent_matches(path),
            expected,
            "{pattern} {path}"
        );
    }
}

#[test]
fn the_last_pattern_that_applies_decides() {
    for (patterns, path, expected) in [
        (vec!["*", "!README.md"], "README.md", false),
        (vec!["*", "!README.md"], "src/README.md", true),
        (
            vec!["*.md", "!README*.md", "README-secret.md"],
            "README-secret.md",
            true,
        ),
        (
            vec!["*.md", "!README*.md", "README-secret.md"],
            "README.md",
            false,
        ),
        (vec!["docs", "!docs/keep"], "docs/keep/x", false),
        (vec!["docs", "!docs/keep", "docs/keep/x"], "docs/keep/x", true),
        (vec!["!docs", "docs"], "docs", true),
        (vec!["**", "!dir", "!dir/*"], "dir/file", false),
        (vec!["*", "!dir"], "dir/file", false),
        (vec!["dir/*", "!dir/file"], "dir/file/sub", false),
    ] {
        let matcher = PatternMatcher::new(&patterns).unwrap();
        assert_eq!(
            matcher.matches_or_parent_matches(path),
            expected,
            "{patterns:?} {path}"
        );
    }
}

#[test]
fn a_walk_that_hands_on_its_parent_gets_the_same_answers() {
    let lists: [&[&str]; 5] = [
        &["a", "!a/b", "a/b/c"],
        &["**/x", "!a/**/x"],
        &["*", "!a/b"],
        &["a/*/c", "!**/c"],
        &["!a", "a/b"],
    ];
    let paths = ["a", "a/b", "a/b/c", "a/b/c/x", "x", "b/x", "b", "a/x"];
    for list in lists {
        let matcher = PatternMatcher::new(list).unwrap();
        for path in paths {
            let mut parent = ParentMatch::default();
            let mut matched = false;
            for end in path.match_indices('/').map(|(at, _)| at).chain([path.len()]) {
                (matched, parent) = matcher.matches_below(&path[..end], &parent);
            }
            assert_eq!(
                matched,
                matcher.matches_or_parent_matches(path),
                "{list:?} {path}"
            );
        }
    }
}

#[test]
fn malformed_patterns_are_named() {
    assert_eq!(
        PatternMatcher::new(["a", "!"]).unwrap_err(),
        PatternError::LoneExclamation
    );
    assert_eq!(
        PatternMatcher::new(["a[b"]).unwrap_err().to_string(),
        "\"a[b\": syntax error in pattern"
    );
    assert!(PatternMatcher::new(["", "  "]).unwrap().is_empty());
}

#[test]
fn a_folder_is_only_walked_for_reinclusions_that_can_lie_below_it() {
    let matcher = PatternMatcher::new(["*", "!src/main.rs", "!docs/**/x", "!lib*/a"]).unwrap();
    for (folder, expected) in [
        ("src", true),
        ("node_modules", false),
        ("docs", true),
        ("docs/a/b", true),
        ("srcs", false),
        ("lib2", true),
    ] {
        assert_eq!(matcher.may_reinclude_below(folder), expected, "{folder}");
    }
}

proptest::proptest! {
    #[test]
    fn patterns_never_panic(patterns in proptest::collection::vec("[ab*?!/\\[\\]\\^\\-.\\\\]{0,8}", 0..4), path in "[ab/.*\\-]{0,10}") {
        if let Ok(matcher) = PatternMatcher::new(&patterns) {
            matcher.matches_or_parent_matches(&path);
            matcher.may_reinclude_below(&path);
        }
        read_ignore_file(&patterns.join("\n"));
    }
}
