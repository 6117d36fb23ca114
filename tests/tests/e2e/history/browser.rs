//! The page of `history open` in a real browser.
//!
//! With TRIMARAN_PICTURES set to a folder, pictures of what was seen are written there.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use base64::Engine as _;
use proto::control::{BuildHistoryRecord, StatusResponse, Vertex, VertexLog};
use serde_json::json;
use tests::browser::Browser;
use tests::fake_daemon::{Answers, FakeDaemon};
use tests::needs::{Need, given};
use tests::process::Ended;
use tests::programs::ours;

use super::fixture::{self, COMPLETED, FAILED, FIXED};

/// The page of a record, written for a browser.
struct Page {
    folder: tempfile::TempDir,
    _daemon: FakeDaemon,
}

impl Page {
    fn of(answers: Answers, record: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let daemon = FakeDaemon::start(&folder.path().join("fake.sock"), answers);
        let page = Self {
            folder,
            _daemon: daemon,
        };
        page.run(&[
            "create",
            "--use",
            "--name",
            "test",
            "--driver",
            "remote",
            page._daemon.address(),
        ]);
        page.run(&["history", "open", record, "-o", "page.html", "--no-open"]);
        page
    }

    fn run(&self, arguments: &[&str]) {
        let mut command = Command::new(ours("trimaran"));
        command.args(arguments).current_dir(self.folder.path());
        command
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .env("HOME", self.folder.path());
        Ended::of(&mut command).succeeded();
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("page.html")
    }
}

fn keep_picture(browser: &mut Browser, name: &str) {
    if let Some(folder) = std::env::var_os("TRIMARAN_PICTURES") {
        let picture = base64::prelude::BASE64_STANDARD
            .decode(browser.picture())
            .unwrap();
        std::fs::write(Path::new(&folder).join(format!("{name}.png")), picture).unwrap();
    }
}

fn focused(browser: &mut Browser) -> String {
    let label = browser.value("document.activeElement.getAttribute('aria-label') ?? ''");
    label.as_str().unwrap().to_owned()
}

#[test]
fn the_page_shows_the_course_of_a_build() {
    if !given(&[Need::Chromium]) {
        return;
    }
    let page = Page::of(fixture::answers(FIXED), COMPLETED);
    let mut browser = Browser::start();
    browser.prefer("light");
    browser.open(&page.path(), "");

    // One lane for each platform, one bar for each step, and each kind of bar looks different.
    assert_eq!(
        browser.value("[...document.querySelectorAll('.lane')].map((lane) => lane.dataset.platform)"),
        json!(["", "linux/amd64", "linux/arm64"])
    );
    assert_eq!(
        browser.value(
            "[...document.querySelectorAll('.lane')].map((lane) => lane.querySelectorAll('.bar').length)"
        ),
        json!([2, 2, 2])
    );
    assert_eq!(
        browser.texts(".lane[data-platform='linux/arm64'] small"),
        ["2 steps", "emulated"]
    );
    assert_eq!(
        browser.texts(".lane[data-platform='linux/amd64'] small"),
        ["2 steps", "native"]
    );
    assert_eq!(
        browser.texts(".bar.cached"),
        ["FROM docker.io/library/alpine:3.20"]
    );
    assert_eq!(
        browser.value("document.querySelectorAll('.bar.emulated').length"),
        json!(1)
    );
    let looks = browser.value(
        "new Set([...document.querySelectorAll('.bar')].map((bar) => getComputedStyle(bar).backgroundImage)).size",
    );
    assert_eq!(looks, json!(3), "patterns, not colours alone");
    assert_eq!(
        browser.texts("#legend li"),
        ["Ran", "Ran emulated", "Cached", "Waited for its turn"]
    );
    assert_eq!(
        browser.value("document.querySelectorAll('.wait').length"),
        json!(3)
    );
    let table = browser.texts("#steps tbody tr:nth-child(6) td");
    assert_eq!(table[3..], ["done", "1.21 s", "10 ms", "210 ms"]);

    // What it was told is text and nothing else.
    assert_eq!(browser.value("document.scripts.length"), json!(2));
    assert_eq!(browser.texts("h1"), ["services/app (release)"]);

    // The pointer shows command, times and log.
    browser.hover(".bar.emulated");
    assert_eq!(
        browser.value("document.getElementById('tip').hidden"),
        json!(false)
    );
    assert_eq!(
        browser.texts("#tip .command"),
        ["RUN echo \"</script><script>alert(1)</script>\""]
    );
    assert_eq!(
        browser.texts("#tip .times"),
        [
            "linux/arm64 · release 2/2 · done, emulated",
            "419 ms into the build · took 780 ms · waited 269 ms"
        ]
    );
    assert_eq!(browser.texts("#tip pre"), ["emulated output\nwithout an end"]);
    keep_picture(&mut browser, "light");

    // The same with the keyboard alone.
    browser.value("document.querySelector('.bar[tabindex=\"0\"]').focus()");
    assert!(focused(&mut browser).starts_with("load build definition"));
    browser.press("ArrowDown");
    assert!(focused(&mut browser).starts_with("FROM docker.io/library/alpine:3.20, linux/amd64, done"));
    browser.press("ArrowRight");
    assert!(focused(&mut browser).contains("linux/amd64, done, took 100 ms, waited 10 ms"));
    assert_eq!(
        browser.texts("#tip pre"),
        ["</script><script>alert(1)</script>\nsecond line"]
    );
    browser.press("Enter");
    assert_eq!(
        browser.value("document.getElementById('details').hidden"),
        json!(false)
    );
    assert_eq!(
        browser.texts("#details .log"),
        ["</script><script>alert(1)</script>\nsecond line\n"]
    );
    assert_eq!(browser.value("location.hash"), json!("#step=4"));
    browser.press("Escape");
    assert_eq!(
        browser.value("document.getElementById('details').hidden"),
        json!(true)
    );
    assert!(
        focused(&mut browser).contains("linux/amd64"),
        "the focus is where it was"
    );

    // A link leads to a step; finding dims what does not match.
    browser.open(&page.path(), "#step=6");
    assert_eq!(browser.texts("#details-title"), ["exporting to image"]);
    browser.value(
        "(() => { const search = document.getElementById('search'); search.value = 'emulated OUTPUT'; search.dispatchEvent(new Event('input')); })()",
    );
    assert_eq!(browser.texts("#matches"), ["1 step"]);
    assert_eq!(
        browser.value("document.querySelectorAll('.bar.dim').length"),
        json!(5)
    );

    // Zooming makes room.
    let width = browser
        .value("document.getElementById('canvas').clientWidth")
        .as_i64()
        .unwrap();
    browser.value("document.getElementById('zoom-in').click()");
    let wider = browser
        .value("document.getElementById('canvas').clientWidth")
        .as_i64()
        .unwrap();
    assert!((wider - width * 2).abs() <= 2, "{width} {wider}");
    assert!(browser.complaints().is_empty(), "{:?}", browser.complaints());
}

#[test]
fn the_page_is_light_or_dark_as_the_user_prefers() {
    if !given(&[Need::Chromium]) {
        return;
    }
    let page = Page::of(fixture::answers(FIXED), FAILED);
    let mut browser = Browser::start();
    let mut brightness = Vec::new();
    for scheme in ["light", "dark"] {
        browser.prefer(scheme);
        browser.open(&page.path(), "#step=2");
        keep_picture(&mut browser, &format!("failed-{scheme}"));
        let sum = |property: &str| {
            format!(
                "getComputedStyle(document.body).{property}.match(/\\d+/g).slice(0, 3).reduce((sum, part) => sum + Number(part), 0)"
            )
        };
        brightness.push([
            browser.value(&sum("backgroundColor")).as_i64().unwrap(),
            browser.value(&sum("color")).as_i64().unwrap(),
        ]);
    }
    let [[light, light_text], [dark, dark_text]] = brightness[..] else {
        panic!("{brightness:?}")
    };
    assert!(light > 600 && light_text < 200, "{brightness:?}");
    assert!(dark < 200 && dark_text > 600, "{brightness:?}");

    // A failure is at the top, and its step is marked.
    assert_eq!(browser.texts("#status"), ["failed"]);
    assert!(browser.texts("#problem-text")[0].contains("exit code: 2"));
    assert!(browser.texts("#problem-source")[0].contains(">>> RUN make check"));
    assert_eq!(browser.texts(".bar.failed"), ["✕ RUN make check"]);
    browser.value("document.getElementById('problem-step').click()");
    assert!(browser.texts("#details-body pre")[0].contains("exit code: 2"));
    assert!(browser.texts("#details .log")[0].ends_with("test 31 FAILED\n"));
    assert!(browser.complaints().is_empty(), "{:?}", browser.complaints());
}

const STEPS: usize = 1000;

/// A build with a thousand steps on three platforms, each of which says 40 kB, and one much more.
fn large() -> Answers {
    let at = |milliseconds: usize| {
        let milliseconds = i64::try_from(milliseconds).unwrap();
        Some(prost_types::Timestamp {
            seconds: FIXED + milliseconds / 1000,
            nanos: i32::try_from(milliseconds % 1000 * 1_000_000).unwrap(),
        })
    };
    let line = "a line of output that a compiler may print, long enough to be of some weight\n";
    let mut progress = Vec::new();
    for number in 0..STEPS {
        let platform = ["linux/amd64", "linux/arm64", "linux/s390x"][number % 3];
        let repeats = if number == 500 { 100_000 } else { 500 };
        let vertex = Vertex {
            digest: format!("sha256:{number:064}"),
            inputs: (number >= 3)
                .then(|| format!("sha256:{:064}", number - 3))
                .into_iter()
                .collect(),
            name: format!("[{platform} stage {number}/{STEPS}] RUN step {number}"),
            started: at(number * 40),
            completed: at(number * 40 + 30 + (number * 7919) % 400),
            ..Vertex::default()
        };
        let log = VertexLog {
            vertex: vertex.digest.clone(),
            timestamp: at(number * 40 + 10),
            stream: 1,
            msg: line.repeat(repeats).into_bytes().into(),
        };
        progress.push(StatusResponse {
            vertexes: vec![vertex],
            logs: vec![log],
            ..StatusResponse::default()
        });
    }
    Answers {
        records: vec![BuildHistoryRecord {
            r#ref: "large".to_owned(),
            frontend_attrs: [(
                "platform".to_owned(),
                "linux/amd64,linux/arm64,linux/s390x".to_owned(),
            )]
            .into(),
            created_at: at(0),
            completed_at: at(STEPS * 40 + 500),
            num_total_steps: i32::try_from(STEPS).unwrap(),
            ..BuildHistoryRecord::default()
        }],
        progress: [("large".to_owned(), progress)].into(),
        ..Answers::default()
    }
}

#[test]
fn a_thousand_steps_with_much_output_stay_usable() {
    if !given(&[Need::Chromium]) {
        return;
    }
    let page = Page::of(large(), "large");
    let size = page.path().metadata().unwrap().len();
    assert!(size < 20 << 20, "48 MB of output make a page of {size} bytes");
    let mut browser = Browser::start();
    let begin = Instant::now();
    browser.open(&page.path(), "#step=501");
    let took = begin.elapsed();
    keep_picture(&mut browser, "large");
    assert!(took < Duration::from_secs(20), "{took:?}");
    assert_eq!(
        browser.value("document.querySelectorAll('.bar').length"),
        json!(STEPS)
    );
    assert_eq!(
        browser.value("document.querySelectorAll('.bar[tabindex=\"0\"]').length"),
        json!(1)
    );
    assert_eq!(
        browser.value("document.querySelectorAll('#steps tbody tr').length"),
        json!(STEPS)
    );
    let notice = browser.texts("#details .notice");
    assert!(
        notice[0].contains("MB in the middle of this log are left out"),
        "{notice:?}"
    );
    assert!(notice[0].contains("trimaran history logs large"));
    assert!(browser.complaints().is_empty(), "{:?}", browser.complaints());
}
