//! The image config while instructions change it, and the history they leave.
//!
//! `created_by` texts are those of BuildKit to the character, Go's list and duration formats included: they are part
//! of the config, and so of the digest of the image.

use binfmt::Platform;
use dockerfile::instruction::{CommandLine, Healthcheck, Timing};
use registry::ImageConfig;
use registry::image::{self, History};

const COMMENT: &str = "buildkit.dockerfile.v0";
const WINDOWS: &str = "windows";
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Whether an instruction makes a layer.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Layer {
    Made,
    None,
}

pub(super) fn platform_of(platform: &Platform) -> registry::Platform {
    registry::Platform {
        os_version: platform.os_version().to_owned(),
        ..registry::Platform::new(platform.os(), platform.architecture(), platform.variant())
    }
}

/// The config of `scratch`.
pub(super) fn scratch(platform: &Platform) -> ImageConfig {
    let mut image = ImageConfig::for_platform(&platform_of(platform));
    image.config.working_dir = "/".to_owned();
    image.config.env.extend(default_path(platform.os()));
    image
}

/// Where programs are, for an image that does not say. Windows knows by itself.
pub(super) fn default_path(os: &str) -> Option<String> {
    (os != WINDOWS).then(|| format!("PATH={DEFAULT_PATH}"))
}

pub(super) fn commit(history: &mut Vec<History>, created_by: String, layer: Layer) {
    history.push(History {
        created_by,
        comment: COMMENT.to_owned(),
        empty_layer: layer == Layer::None,
        ..History::default()
    });
}

/// Gives the entries of this build's instructions a time, whatever an exporter does about times.
pub(super) fn date(image: &mut ImageConfig, epoch: i64) {
    let created = jiff::Timestamp::from_second(epoch)
        .unwrap_or_default()
        .to_string();
    let ours = |entry: &&mut History| entry.created.is_none() && entry.comment == COMMENT;
    for entry in image.history.iter_mut().filter(ours) {
        entry.created = Some(created.clone());
    }
}

/// Sets a variable of the config; the place of one that is there stays.
pub(super) fn set_env(env: &mut Vec<String>, name: &str, value: &str) {
    let pair = format!("{name}={value}");
    match env.iter_mut().find(|known| known.split('=').next() == Some(name)) {
        Some(known) => *known = pair,
        None => env.push(pair),
    }
}

/// The words of a command; the shell form through the shell of the stage.
pub(super) fn command(image: &ImageConfig, line: &CommandLine) -> Vec<String> {
    match line {
        CommandLine::Exec(words) => words.clone(),
        CommandLine::Shell(text) => in_shell(image, text),
    }
}

pub(super) fn in_shell(image: &ImageConfig, text: &str) -> Vec<String> {
    let mut words = image.config.shell.clone();
    if words.is_empty() {
        let shell: &[&str] = match image.os.as_str() {
            WINDOWS => &["cmd", "/S", "/C"],
            _ => &["/bin/sh", "-c"],
        };
        words.extend(shell.iter().map(|word| (*word).to_owned()));
    }
    words.push(text.to_owned());
    words
}

pub(super) fn healthcheck(check: &Healthcheck) -> image::Healthcheck {
    match check {
        Healthcheck::None => image::Healthcheck {
            test: vec!["NONE".to_owned()],
            ..image::Healthcheck::default()
        },
        Healthcheck::Test { command, timing } => {
            let Timing {
                interval,
                timeout,
                start_period,
                start_interval,
                retries,
            } = *timing;
            let test = match command {
                CommandLine::Shell(text) => vec!["CMD-SHELL".to_owned(), text.clone()],
                CommandLine::Exec(words) => [vec!["CMD".to_owned()], words.clone()].concat(),
            };
            image::Healthcheck {
                test,
                interval,
                timeout,
                start_period,
                start_interval,
                retries: retries.into(),
            }
        }
    }
}

/// As Go prints the struct.
pub(super) fn healthcheck_text(check: &image::Healthcheck) -> String {
    format!(
        "{{Test:{} Interval:{} Timeout:{} StartPeriod:{} StartInterval:{} Retries:{}}}",
        list(&check.test),
        duration(check.interval),
        duration(check.timeout),
        duration(check.start_period),
        duration(check.start_interval),
        check.retries
    )
}

/// Go's `%v` of a list: `[a b]`.
pub(super) fn list(words: &[String]) -> String {
    format!("[{}]", words.join(" "))
}

/// Go's `%q` of a list: `["a" "b c"]`.
pub(super) fn quoted_list(words: &[String]) -> String {
    let quoted: Vec<String> = words.iter().map(|word| quote(word)).collect();
    format!("[{}]", quoted.join(" "))
}

fn quote(text: &str) -> String {
    let mut out = String::from('"');
    for ch in text.chars() {
        match ch {
            '"' | '\\' => out.extend(['\\', ch]),
            '\u{7}' => out.push_str("\\a"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{b}' => out.push_str("\\v"),
            ch if ch.is_ascii_control() => out.push_str(&format!("\\x{:02x}", u32::from(ch))),
            ch if ch.is_control() => out.push_str(&format!("\\u{:04x}", u32::from(ch))),
            ch => out.push(ch),
        }
    }
    out.push('"');
    out
}

/// Go's `Duration.String`.
fn duration(nanoseconds: i64) -> String {
    let sign = if nanoseconds < 0 { "-" } else { "" };
    let all = nanoseconds.unsigned_abs();
    let fraction = |value: u64, unit: u64, name: &str| {
        let digits = unit.to_string().len() - 1;
        let (whole, rest) = (value / unit, value % unit);
        let rest = format!("{rest:0digits$}");
        match rest.trim_end_matches('0') {
            "" => format!("{whole}{name}"),
            rest => format!("{whole}.{rest}{name}"),
        }
    };
    let text = match all {
        0 => "0s".to_owned(),
        1..1_000 => format!("{all}ns"),
        1_000..1_000_000 => fraction(all, 1_000, "µs"),
        1_000_000..1_000_000_000 => fraction(all, 1_000_000, "ms"),
        _ => {
            let minutes = all / 60_000_000_000;
            let seconds = fraction(all % 60_000_000_000, 1_000_000_000, "s");
            match (minutes / 60, minutes % 60) {
                (0, 0) => seconds,
                (0, minutes) => format!("{minutes}m{seconds}"),
                (hours, minutes) => format!("{hours}h{minutes}m{seconds}"),
            }
        }
    };
    format!("{sign}{text}")
}

/// Whether a STOPSIGNAL names a signal: a number, or a name with or without `SIG`.
pub(super) fn is_signal(text: &str) -> bool {
    const NAMES: [&str; 35] = [
        "ABRT", "ALRM", "BUS", "CHLD", "CLD", "CONT", "FPE", "HUP", "ILL", "INT", "IO", "IOT", "KILL",
        "PIPE", "POLL", "PROF", "PWR", "QUIT", "SEGV", "STKFLT", "STOP", "SYS", "TERM", "TRAP", "TSTP",
        "TTIN", "TTOU", "URG", "USR1", "USR2", "VTALRM", "WINCH", "XCPU", "XFSZ", "RTMIN",
    ];
    if let Ok(number) = text.parse::<i32>() {
        return number != 0;
    }
    let name = text.to_uppercase();
    let name = name.strip_prefix("SIG").unwrap_or(&name);
    let offset = |prefix: &str, most: u8| {
        name.strip_prefix(prefix)
            .and_then(|number| number.parse::<u8>().ok())
            .is_some_and(|number| (1..=most).contains(&number))
    };
    NAMES.contains(&name) || name == "RTMAX" || offset("RTMIN+", 15) || offset("RTMAX-", 14)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_as_go_prints_them() {
        for (nanoseconds, expected) in [
            (0, "0s"),
            (1, "1ns"),
            (1_500, "1.5µs"),
            (500_000_000, "500ms"),
            (1_000_000_000, "1s"),
            (1_500_000_000, "1.5s"),
            (90_000_000_000, "1m30s"),
            (3_600_000_000_000, "1h0m0s"),
            (-2_000_000, "-2ms"),
        ] {
            assert_eq!(duration(nanoseconds), expected);
        }
    }

    #[test]
    fn lists_read_as_go_prints_them() {
        let words = ["a", "b \"c\"\n\u{1}é"].map(str::to_owned);
        assert_eq!(quoted_list(&words), "[\"a\" \"b \\\"c\\\"\\n\\x01é\"]");
        assert_eq!(list(&words[..1]), "[a]");
        assert_eq!(quoted_list(&[]), "[]");
    }

    #[test]
    fn signals_have_names_and_numbers() {
        for (text, expected) in [
            ("SIGTERM", true),
            ("term", true),
            ("9", true),
            ("0", false),
            ("SIGRTMIN+3", true),
            ("RTMIN+16", false),
            ("x", false),
        ] {
            assert_eq!(is_signal(text), expected, "{text}");
        }
    }
}
