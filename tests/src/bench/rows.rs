//! What is measured: the rows of the performance budget.

use std::time::Duration;

use anyhow::Context as _;
use serde_json::json;

use super::content::{Numbers, small_files};
use super::{Bench, Endpoint};
use crate::busybox::gzip;
use crate::distribution::{Image, digest_of};

const STEPS: u32 = 50;
/// After this long without builds the daemon has tidied up.
const IDLE_AFTER: Duration = Duration::from_secs(125);

/// One line of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Row {
    /// 50 steps that do nothing, natively; the time of one
    Steps,
    /// The same, emulated
    EmulatedSteps,
    /// One file of 512 MiB, compressed and pushed
    LargeFile,
    /// 10 000 small files, pushed
    SmallFiles,
    /// The same with one file changed
    OneChanged,
    /// A context of 100 000 files, nothing changed
    UnchangedContext,
    /// Two platforms, nothing changed, pushed
    Unchanged,
    /// Two stages on two platforms, nothing cached
    Hello,
    /// Memory of a daemon that has been idle for two minutes, in MB
    Memory,
    /// 200 stages with 800 steps and 200 copies, nothing cached
    Graph,
    /// The same, all cached
    GraphCached,
    /// Eight builds of 20 steps at once
    Parallel,
    /// A base image of 47 MB that is not there yet, and one step
    Pull,
    /// `imagetools inspect`, which no daemon takes part in
    Inspect,
    /// `bake --print` of 200 targets, which no daemon takes part in
    Bake,
}

impl Row {
    /// What the row is called, and the budget, in the row's unit.
    pub fn title_and_budget(self) -> (&'static str, f64) {
        match self {
            Self::Steps => ("50 × RUN true, native, ms a step", 6.0),
            Self::EmulatedSteps => ("50 × RUN true, emulated arm64, ms a step", 25.0),
            Self::LargeFile => ("COPY 512 MiB, gzip, push, s", 4.0),
            Self::SmallFiles => ("COPY 10 000 small files, push, s", 0.8),
            Self::OneChanged => ("COPY 10 000 small files, one changed, s", 0.4),
            Self::UnchangedContext => ("context of 100 000 files, nothing changed, s", 1.0),
            Self::Unchanged => ("nothing changed, two platforms, push, s", 0.04),
            Self::Hello => ("two-platform hello, two stages, cold, s", 0.4),
            Self::Memory => ("idle daemon, MB resident", 25.0),
            Self::Graph => ("200 stages, 800 RUN, 200 COPY --from, cold, s", 6.0),
            Self::GraphCached => ("200 stages, all cached, s", 0.25),
            Self::Parallel => ("8 builds of 20 RUN steps at once, s", 1.0),
            Self::Pull => ("pull and unpack a 47 MB base, one RUN, s", 0.9),
            Self::Inspect => ("imagetools inspect, ms", 15.0),
            Self::Bake => ("bake --print, 200 targets, ms", 100.0),
        }
    }
}

impl Bench {
    /// Measures a row once, in its unit. `run` differs in every run, so that content can be new.
    pub fn measure(&self, row: Row, endpoint: &Endpoint, run: u32) -> anyhow::Result<Option<f64>> {
        let measured = match row {
            Row::Steps => self.steps(endpoint, "linux/amd64")?,
            Row::EmulatedSteps => self.steps(endpoint, "linux/arm64")?,
            Row::LargeFile => self.large_file(endpoint, run)?,
            Row::SmallFiles => self.small_files(endpoint, run, Change::All)?,
            Row::OneChanged => self.small_files(endpoint, run, Change::One)?,
            Row::UnchangedContext => self.unchanged_context(endpoint)?,
            Row::Unchanged => self.hello(endpoint, &[])?,
            Row::Hello => self.hello(endpoint, &["--no-cache"])?,
            Row::Memory => {
                if run == 0 {
                    std::thread::sleep(IDLE_AFTER);
                }
                return endpoint.process.map(resident).transpose();
            }
            Row::Graph => self.graph(endpoint, &["--no-cache"])?,
            Row::GraphCached => self.graph(endpoint, &[])?,
            Row::Parallel => self.parallel(endpoint)?,
            Row::Pull => self.pull(endpoint, run)?,
            Row::Inspect => self.run(&["imagetools", "inspect", &self.image("base")])?,
            Row::Bake => self.bake()?,
        };
        let seconds = measured.as_secs_f64();
        Ok(Some(match row {
            Row::Steps | Row::EmulatedSteps => seconds * 1000.0 / f64::from(STEPS),
            Row::Inspect | Row::Bake => seconds * 1000.0,
            _ => seconds,
        }))
    }

    /// 200 targets that inherit, call a function and interpolate.
    fn bake(&self) -> anyhow::Result<Duration> {
        let mut text = String::from(
            "variable \"TAG\" { default = \"latest\" }\nfunction \"tags\" {\n  params = [name]\n  result = [\"example/${name}:${TAG}\"]\n}\ntarget \"base\" { args = { A = upper(TAG) } }\n",
        );
        for number in 0..200 {
            text.push_str(&format!(
                "target \"t{number}\" {{\n  inherits = [\"base\"]\n  tags = tags(\"t{number}\")\n  args = {{ N = {number} * 2 }}\n}}\n"
            ));
        }
        let context = self.context("bake", "FROM scratch\n")?;
        let file = context.join("docker-bake.hcl");
        std::fs::write(&file, text)?;
        self.run(&["bake", "--print", "-f", &file.display().to_string(), "t*"])
    }

    /// The time that the steps add to a build that has none.
    fn steps(&self, endpoint: &Endpoint, platform: &str) -> anyhow::Result<Duration> {
        let platform = format!("--platform={platform}");
        let few = self.context("no-steps", "FROM @base@\nRUN true\n")?;
        let many: String = (0..=STEPS).map(|step| format!("RUN true {step}\n")).collect();
        let many = self.context("steps", &format!("FROM @base@\n{many}"))?;
        self.build(endpoint, &few, &[&platform])?;
        let without = self.build(endpoint, &few, &[&platform, "--no-cache"])?;
        let with = self.build(endpoint, &many, &[&platform, "--no-cache"])?;
        Ok(with.saturating_sub(without))
    }

    fn large_file(&self, endpoint: &Endpoint, run: u32) -> anyhow::Result<Duration> {
        const PART: usize = 8 << 20;
        let context = self.context("large", "FROM scratch\nCOPY large /\n")?;
        let part = Numbers::new(u64::from(run)).bytes(PART);
        let mut file = std::fs::File::create(context.join("large"))?;
        for at in 0..64_u64 {
            // Parts differ, or a compressor with a long memory would find them again.
            std::io::Write::write_all(&mut file, &at.to_le_bytes())?;
            std::io::Write::write_all(&mut file, &part[8..])?;
        }
        drop(file);
        self.push(endpoint, &context, &format!("large-{}", endpoint.name))
    }

    fn small_files(&self, endpoint: &Endpoint, run: u32, change: Change) -> anyhow::Result<Duration> {
        let name = format!("small-{}", endpoint.name);
        let context = self.context(&name, "FROM scratch\nCOPY files /files\n")?;
        if !context.join("files").exists() {
            small_files(&context.join("files"), 10_000, 1000)?;
        }
        let changed = match change {
            Change::All => 10_000,
            Change::One => 1,
        };
        if matches!(change, Change::One) {
            self.push(endpoint, &context, &name)?;
        }
        for index in 0..changed {
            let path = context.join(format!("files/{:03}/{index}.txt", index / 100));
            let mut content = std::fs::read(&path)?;
            let mark = format!("{change:?} {run} {index}");
            content.splice(..mark.len().min(content.len()), mark.bytes());
            std::fs::write(&path, content)?;
        }
        self.push(endpoint, &context, &name)
    }

    /// What it takes to find out that nothing has to be sent.
    fn unchanged_context(&self, endpoint: &Endpoint) -> anyhow::Result<Duration> {
        let context = self.context("many", "FROM scratch\nCOPY files /files\n")?;
        if !context.join("files").exists() {
            small_files(&context.join("files"), 100_000, 100)?;
        }
        let arguments = ["--platform=linux/amd64"];
        self.build(endpoint, &context, &arguments)?;
        self.build(endpoint, &context, &arguments)
    }

    fn push(&self, endpoint: &Endpoint, context: &std::path::Path, name: &str) -> anyhow::Result<Duration> {
        self.build(
            endpoint,
            context,
            &["--platform=linux/amd64", "-t", &self.image(name), "--push"],
        )
    }

    fn hello(&self, endpoint: &Endpoint, arguments: &[&str]) -> anyhow::Result<Duration> {
        let dockerfile = "FROM @base@ AS builder\nARG TARGETPLATFORM\nCOPY words.txt /\n\
            RUN mkdir /out && echo $TARGETPLATFORM $(uname -m) > /out/hello\nFROM @base@\nCOPY --from=builder /out /out\n";
        let context = self.context("hello", dockerfile)?;
        std::fs::write(context.join("words.txt"), "hello\n")?;
        let image = self.image(&format!("hello-{}", endpoint.name));
        let mut all = vec!["--platform=linux/arm64,linux/amd64", "-t", &image, "--push"];
        if arguments.is_empty() {
            self.build(endpoint, &context, &all)?;
        }
        all.extend(arguments);
        self.build(endpoint, &context, &all)
    }

    fn graph(&self, endpoint: &Endpoint, arguments: &[&str]) -> anyhow::Result<Duration> {
        let mut dockerfile = "FROM @base@ AS s0\nRUN echo 0 > /0\n".to_owned();
        for stage in 1..=200 {
            dockerfile.push_str(&format!(
                "FROM @base@ AS s{stage}\nCOPY --from=s{} /{} /{stage}\n",
                stage - 1,
                stage - 1
            ));
            for step in 0..4 {
                dockerfile.push_str(&format!("RUN echo {step} >> /{stage}\n"));
            }
        }
        let context = self.context("graph", &dockerfile)?;
        if arguments.is_empty() {
            self.build(endpoint, &context, &["--platform=linux/amd64"])?;
        }
        let mut all = vec!["--platform=linux/amd64"];
        all.extend(arguments);
        self.build(endpoint, &context, &all)
    }

    fn parallel(&self, endpoint: &Endpoint) -> anyhow::Result<Duration> {
        let contexts = (0..8)
            .map(|build| {
                let steps: String = (0..20).map(|step| format!("RUN echo {build} {step}\n")).collect();
                self.context(&format!("parallel-{build}"), &format!("FROM @base@\n{steps}"))
            })
            .collect::<Result<Vec<_>, _>>()?;
        let started = std::time::Instant::now();
        std::thread::scope(|scope| {
            let arguments = ["--platform=linux/amd64", "--no-cache"];
            let builds: Vec<_> = contexts
                .iter()
                .map(|context| scope.spawn(move || self.build(endpoint, context, &arguments)))
                .collect();
            builds
                .into_iter()
                .try_for_each(|build| build.join().expect("builds do not panic").map(drop))
        })?;
        Ok(started.elapsed())
    }

    /// Every run and endpoint pulls an image that nobody has seen, with the sizes of a small distribution.
    fn pull(&self, endpoint: &Endpoint, run: u32) -> anyhow::Result<Duration> {
        let (manifest, config) = self.registry.repository("base").image("latest", "linux/amd64")?;
        let digest = manifest["layers"][0]["digest"]
            .as_str()
            .context("the base image has a layer")?;
        let base = self.registry.repository("base").blob(digest)?;
        let mut numbers =
            Numbers::new(u64::from(run) + digest_of(endpoint.name.as_bytes()).len() as u64 * 1000);
        let mut archive = tar::Builder::new(Vec::new());
        for index in 0..4000 {
            let content = numbers.bytes(if index % 100 == 0 { 1_000_000 } else { 20_000 });
            let mut header = tar::Header::new_ustar();
            header.set_size(content.len() as u64);
            header.set_mode(0o644);
            archive.append_data(
                &mut header,
                format!("usr/share/{}/{}/{index}", endpoint.name, index / 50),
                &*content,
            )?;
        }
        let archive = archive.into_inner()?;
        let mut config = config;
        let base_id = config["rootfs"]["diff_ids"][0].clone();
        config["rootfs"]["diff_ids"] = json!([base_id, digest_of(&archive)]);
        let name = format!("distribution-{}-{run}", endpoint.name);
        let image = Image {
            config,
            layers: vec![base, gzip(&archive)?],
        };
        self.registry.repository(&name).push_index("latest", &[image])?;
        let dockerfile = format!("FROM {}\nRUN true\n", self.image(&name));
        let context = self.context(&name, &dockerfile)?;
        self.build(endpoint, &context, &["--platform=linux/amd64"])
    }
}

#[derive(Debug, Clone, Copy)]
enum Change {
    All,
    One,
}

/// The resident memory of a process, in MB.
fn resident(process: u32) -> anyhow::Result<f64> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status"))?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .context("the process has no memory")?;
    let kilobytes: f64 = line.trim().trim_end_matches(" kB").parse()?;
    Ok(kilobytes / 1000.0)
}
