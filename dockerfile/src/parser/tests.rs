use super::*;

fn entries(text: &str) -> Vec<Entry> {
    read(text).unwrap().entries
}

#[test]
fn continuation_lines_are_joined_and_keep_their_place() {
    let text = "# top\n\nFROM a\n  # about run\nRUN one \\\n  # between\n\n   two \\  \n three\n\nCMD x";
    let entries = entries(text);
    let seen: Vec<_> = entries
        .iter()
        .map(|entry| (entry.code.as_str(), entry.lines.first, entry.lines.last))
        .collect();
    assert_eq!(
        seen,
        [
            ("FROM a", 3, 3),
            ("RUN one    two  three", 5, 9),
            ("CMD x", 11, 11)
        ]
    );
    assert_eq!(entries[0].comments, ["top"]);
    assert_eq!(entries[1].comments, ["about run"]);
    assert_eq!(
        read(text).unwrap().empty_continuations,
        [EmptyContinuation { line: 9 }]
    );
}

#[test]
fn line_ends_byte_order_marks_and_escapes() {
    for (text, codes) in [
        ("\u{feff}FROM a\r\nRUN b \\\r\n c\r\n", vec!["FROM a", "RUN b  c"]),
        (
            "# escape=`\nFROM a\nRUN dir c:\\\nCMD `\n x",
            vec!["FROM a", "RUN dir c:\\", "CMD  x"],
        ),
        (
            "FROM a\nRUN echo \\\\\nCMD x",
            vec!["FROM a", "RUN echo \\\\", "CMD x"],
        ),
        (
            "# comment\n# escape=`\nFROM a\nRUN b \\\nc",
            vec!["FROM a", "RUN b c"],
        ),
        ("FROM a\nRUN b \\", vec!["FROM a", "RUN b"]),
        ("\\\nFROM a", vec!["FROM a"]),
    ] {
        let seen: Vec<_> = entries(text).into_iter().map(|entry| entry.code).collect();
        assert_eq!(seen, codes, "{text:?}");
    }
}

#[test]
fn directives_stand_on_top_and_once() {
    let source = read("# syntax=docker/dockerfile:1\n#ESCAPE = `\n# check=skip=all\nFROM a").unwrap();
    assert_eq!((source.escape, source.check.as_deref()), ('`', Some("skip=all")));
    assert_eq!(source.entries[0].comments, Vec::<String>::new());
    for (text, expected) in [
        (
            "# escape=\\\n# escape=`\nFROM a",
            "dockerfile parse error on line 2: only one escape parser directive can be used",
        ),
        (
            "# escape=x\nFROM a",
            "dockerfile parse error on line 1: invalid escape token 'x' does not match ` or \\",
        ),
        ("", "file with no instructions"),
        ("# only\n\n", "file with no instructions"),
        (
            "FROM a\nRUN <<E\nx\n",
            "dockerfile parse error on line 2: unterminated heredoc",
        ),
    ] {
        assert_eq!(read(text).unwrap_err().to_string(), expected, "{text:?}");
    }
}

#[test]
fn the_syntax_directive_is_found_in_any_language() {
    for (text, expected) in [
        (
            "# syntax=docker/dockerfile:1\nFROM a",
            Some(("docker/dockerfile:1", 1)),
        ),
        ("\u{feff}#syntax = a/b --x y \r\nFROM a", Some(("a/b", 1))),
        ("# escape=`\n# syntax=a/b\nFROM a", Some(("a/b", 2))),
        ("#!/usr/bin/x\n// syntax=a/b\n{}", Some(("a/b", 2))),
        ("# words\n# syntax=a/b\nFROM a", None),
        ("FROM a", None),
    ] {
        let found = syntax_directive(text);
        let found = found
            .as_ref()
            .map(|found| (found.image.as_str(), found.lines.first));
        assert_eq!(found, expected, "{text:?}");
    }
    assert_eq!(
        syntax_directive("# syntax=a/b --x y").unwrap().command_line,
        "a/b --x y"
    );
}

#[test]
fn flags_are_words_that_start_with_two_dashes() {
    for (code, flags, rest) in [
        (
            "COPY --from=a --chown=b:c x y",
            vec!["--from=a", "--chown=b:c"],
            "x y",
        ),
        (
            "RUN --mount=type=bind,source='a b' ls --all",
            vec!["--mount=type=bind,source=a b"],
            "ls --all",
        ),
        ("RUN -x --y", vec![], "-x --y"),
        ("COPY -- --a b", vec![], "--a b"),
        (r#"COPY --a="\"q" x"#, vec!["--a=\"q"], "x"),
        ("RUN --a", vec!["--a"], ""),
        ("RUN", vec![], ""),
    ] {
        let (_, seen, seen_rest) = split::instruction(code, '\\');
        assert_eq!(
            (seen.as_slice(), seen_rest),
            (flags.map_strings().as_slice(), rest),
            "{code}"
        );
    }
}

trait MapStrings {
    fn map_strings(self) -> Vec<String>;
}

impl MapStrings for Vec<&str> {
    fn map_strings(self) -> Vec<String> {
        self.into_iter().map(str::to_owned).collect()
    }
}

#[test]
fn heredocs_are_read_to_their_word() {
    let text = "FROM a\nRUN <<EOF cat && <<-\"X\" tac\none $a\nEOF\n\t\ttwo\n\tX\nCOPY <<a <<b /dst\nA\na\nB\r\nb\nCMD x\n";
    let entries = entries(text);
    let run = &entries[1].heredocs;
    assert_eq!(
        (run[0].name.as_str(), run[0].content.as_str(), run[0].expand),
        ("EOF", "one $a\n", true)
    );
    assert_eq!(
        (run[1].name.as_str(), run[1].content.as_str(), run[1].expand),
        ("X", "\t\ttwo\n", false)
    );
    assert_eq!((run[1].chomp, run[1].body().as_str()), (true, "two\n"));
    assert_eq!((entries[1].lines.first, entries[1].lines.last), (2, 6));
    let copied: Vec<_> = entries[2]
        .heredocs
        .iter()
        .map(|doc| (doc.name.as_str(), doc.content.as_str()))
        .collect();
    assert_eq!(copied, [("a", "A\n"), ("b", "B\r\n")]);
    assert_eq!(entries[3].code, "CMD x");
}

#[test]
fn not_everything_with_two_angles_is_a_heredoc() {
    for code in [
        "RUN cat <<< x",
        "RUN echo $((1<<2))",
        "RUN [\"<<EOF\"]",
        "CMD <<EOF",
        "RUN echo '<<EOF'",
        "ENV a=<<b",
    ] {
        let text = format!("FROM a\n{code}\nUSER b");
        assert_eq!(entries(&text).len(), 3, "{code}");
    }
    assert_eq!(entries("FROM a\nONBUILD COPY <<E /x\nhi\nE\nUSER b").len(), 3);
    assert_eq!(
        entries("FROM a\nRUN 3<<EOF cat\nx\nEOF")[1].heredocs[0].descriptor,
        3
    );
    assert_eq!(
        entries("FROM a\nRUN cat << EOF\nx\nEOF")[1].heredocs[0].name,
        "EOF"
    );
}

proptest::proptest! {
    #[test]
    fn reading_never_panics(text in "([A-Z]{2,4}|[ \\t\\\\`#=<>\"'\\[\\]\\-\r$]|EOF|RUN|FROM|COPY|--a|<<|\n){0,40}") {
        let _ = read(&text);
        let _ = syntax_directive(&text);
        let _ = crate::parse(&text);
    }
}
