use super::*;

fn environment() -> Environment {
    Environment::from_pairs([
        "PWD=/home",
        "SHELL=bash",
        "NULL=",
        "FILE=archive.tar.gz",
        "PATHS=/usr/a:/usr/b",
        "UNI=한국어",
    ])
}

fn word(text: &str) -> Result<String, String> {
    Expander::new('\\')
        .word(text, &environment())
        .map(|expansion| expansion.text)
        .map_err(|failed| failed.problem.to_string())
}

#[test]
fn words_are_expanded() {
    for (text, expected) in [
        ("hello", "hello"),
        ("he'll'o", "hello"),
        (r"he\'llo", "he'llo"),
        (r"abc\tdef", "abctdef"),
        (r#""abc\tdef""#, r"abc\tdef"),
        (r#""abc\\tdef""#, r"abc\tdef"),
        (r"'abc\tdef'", r"abc\tdef"),
        (r"hello\", "hello"),
        (r"hello\\", r"hello\"),
        (r#""hel'lo""#, "hel'lo"),
        (r"'hello\there'", r"hello\there"),
        ("\"''\"", "''"),
        ("$.", "$."),
        ("he$1x", "hex"),
        ("he$pwd.", "he."),
        ("he$PWD", "he/home"),
        (r"he\$PWD", "he$PWD"),
        (r"he\\$PWD", r"he\/home"),
        (r#""he\$PWD""#, "he$PWD"),
        (r"\${}aaa", "${}aaa"),
        ("he${hi}xx", "hexx"),
        ("he${PWD}", "he/home"),
        ("he${XXX:-000}xx", "he000xx"),
        ("he${PWD:-000}xx", "he/homexx"),
        ("he${XXX:-${YYY:-yyy}}xx", "heyyyxx"),
        ("he${NULL-x}", "he"),
        ("he${NULL:-x}", "hex"),
        ("he${NULL+x}", "hex"),
        ("he${NULL:+x}", "he"),
        ("he${PWD?}", "he/home"),
        ("he${NULL?}", "he"),
        ("he${PWD:+${SHELL}}xx", "hebashxx"),
        ("he${XXX+x}", "he"),
        ("'he${XX}'", "he${XX}"),
        ("\"he'$PWD'\"", "he'/home'"),
        ("he${PWD:+${PWD}:}xx", "he/home:xx"),
        (r"he${XXX:-\$PWD:}xx", "he$PWD:xx"),
        (r"he${XXX:-\${PWD}z}xx", "he${PWDz}xx"),
        ("${aaa}}", "}"),
        ("${aaa:-bbb}}", "bbb}"),
        ("안녕${UNI}", "안녕한국어"),
        ("$$", ""),
        ("a < b << c", "a < b << c"),
        ("${FILE#*.}", "tar.gz"),
        ("${FILE##*.}", "gz"),
        ("${FILE%.*}", "archive.tar"),
        ("${FILE%%.*}", "archive"),
        ("${FILE#nothing}", "archive.tar.gz"),
        ("${FILE#archive?tar}", ".gz"),
        ("${FILE/a/A}", "Archive.tar.gz"),
        ("${FILE//a/A}", "Archive.tAr.gz"),
        (r"${PATHS//\/usr\//}", "a:b"),
        ("${FILE/.*/}", "archive"),
        ("${FILE//./-}", "archive-tar-gz"),
        ("${FILE///+}", "+a+r+c+h+i+v+e+.+t+a+r+.+g+z+"),
        (r"${PWD#\*}", "/home"),
        ("${XXX#x}", ""),
        ("${UNI%?}", "한국"),
    ] {
        assert_eq!(word(text).as_deref(), Ok(expected), "{text}");
    }
}

#[test]
fn what_cannot_be_expanded_says_why() {
    for (text, expected) in [
        (
            "he'llo",
            "unexpected end of statement while looking for matching single-quote",
        ),
        (
            "\"hello",
            "unexpected end of statement while looking for matching double-quote",
        ),
        ("${}", "syntax error: bad substitution"),
        ("${{aaa}", "syntax error: bad substitution"),
        ("he${.}", "unsupported modifier (.) in substitution"),
        ("he${XXX:YYY}", "unsupported modifier (:Y) in substitution"),
        ("he${PWD:=000}xx", "unsupported modifier (:=) in substitution"),
        ("${PWD:#x}", "unsupported modifier (:#) in substitution"),
        ("he${PWD", "syntax error: missing '}'"),
        ("${", "syntax error: missing '}'"),
        ("${aaa:-bbb", "syntax error: missing '}'"),
        ("${PWD/a", "syntax error: missing '/' in ${}"),
        ("${PWD/a/b", "syntax error: missing '}'"),
        ("${XXX?}", "XXX: is not allowed to be unset"),
        ("${NULL:?}", "NULL: is not allowed to be empty"),
        ("${XXX:?give me $SHELL}", "XXX: give me bash"),
        (
            r"${PWD#\x}",
            r"invalid pattern (\x) in substitution: invalid escape '\x'",
        ),
    ] {
        assert_eq!(word(text), Err(expected.to_owned()), "{text}");
    }
    let nested = "${A:-".repeat(100) + &"}".repeat(100);
    assert_eq!(
        word(&nested),
        Err("substitutions are nested more than 64 deep".to_owned())
    );
    let failed = Expander::new('\\').word("a\"", &environment()).unwrap_err();
    assert_eq!(
        failed.to_string(),
        r#"failed to process "a\"": unexpected end of statement while looking for matching double-quote"#
    );
}

#[test]
fn words_are_split_after_substitution() {
    let mut environment = environment();
    environment.set("MORE", "c  d");
    for (text, expected) in [
        ("a b", vec!["a", "b"]),
        ("  a\t b ", vec!["a", "b"]),
        ("'a b' c", vec!["a b", "c"]),
        (r"a\ b", vec!["a b"]),
        ("x$MORE y", vec!["xc", "d", "y"]),
        ("\"$MORE\"", vec!["c  d"]),
        ("a${XXX:-b}c", vec!["abc"]),
        ("cat << EOF", vec!["cat", "<< EOF"]),
        ("", vec![]),
    ] {
        assert_eq!(
            Expander::new('\\').words(text, &environment).unwrap(),
            expected,
            "{text}"
        );
    }
}

#[test]
fn the_escape_and_the_quotes_can_be_chosen() {
    let names = environment();
    let backtick = Expander::new('`');
    assert_eq!(backtick.word(r"c:\dir`$PWD", &names).unwrap().text, r"c:\dir$PWD");
    let shown = Expander {
        quotes: Quotes::Kept,
        unset: Unset::Kept,
        ..Expander::new('\\')
    };
    assert_eq!(
        shown
            .word(r#"echo "$PWD" '$PWD' $NOPE ${NOPE} ${NOPE:-x}"#, &names)
            .unwrap()
            .text,
        r#"echo "/home" '$PWD' $NOPE ${NOPE} ${NOPE:-x}"#
    );
    let data = Expander {
        quotes: Quotes::Ignored,
        ..Expander::new('\\')
    };
    assert_eq!(data.word("it's \"$PWD\"", &names).unwrap().text, "it's \"/home\"");
}

#[test]
fn names_that_were_used_and_names_that_were_missing_are_told_apart() {
    let expansion = Expander::new('\\')
        .word("$PWD ${NOPE:-$SHELL} '$QUOTED'", &environment())
        .unwrap();
    assert_eq!(expansion.used.into_iter().collect::<Vec<_>>(), ["PWD", "SHELL"]);
    assert_eq!(expansion.missing.into_iter().collect::<Vec<_>>(), ["NOPE"]);
}

#[test]
fn doubling_variables_end_at_a_limit() {
    let mut environment = Environment::new();
    environment.set("A", &"x".repeat(1 << 20));
    let failed = Expander::new('\\')
        .word(&"$A".repeat(40), &environment)
        .unwrap_err();
    assert_eq!(failed.problem, ExpandError::TooLong);
}

#[test]
fn a_variable_set_again_moves_to_the_end() {
    let mut environment = Environment::from_pairs(["A=1", "B=2", "C"]);
    environment.set("A", "3");
    assert_eq!(environment.to_pairs(), ["B=2", "C=", "A=3"]);
}

proptest::proptest! {
    #[test]
    fn expansion_never_panics(text in r#"[$\{}A:\-+?#%/*'"\\ <a.]{0,40}"#) {
        let environment = Environment::from_pairs(["A=a.a/a", "a=A"]);
        for escape in ['\\', '`'] {
            let _ = Expander::new(escape).word(&text, &environment);
            let _ = Expander { keep_escapes: true, quotes: Quotes::Kept, unset: Unset::Kept, escape }.words(&text, &environment);
        }
    }
}
