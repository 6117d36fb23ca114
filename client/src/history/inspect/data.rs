//! An inspection for templates and as JSON, with the names that buildx has given its fields.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use jiff::tz::TimeZone;

use super::{Failure, Inspection};
use crate::format::{Data, Field, Nil, field, record};
use crate::gotime;
use crate::history::Outcome;

impl Inspection {
    pub fn data(&self) -> Data {
        let text = |name: &'static str, value: &str| field(name, name, value).omit_empty();
        let attributes = &self.attributes;
        let time = |name: &'static str, time: Option<jiff::Timestamp>| {
            let value = time.map_or(Data::Nil(Nil::Pointer), |time| Data::time(&local(time)));
            field(name, name, value).omit_empty()
        };
        let nanoseconds = i64::try_from(self.nanoseconds.unwrap_or_default()).unwrap_or(i64::MAX);
        let mut fields = vec![
            text("Name", &self.name),
            field("Ref", "Ref", &self.id),
            text("Context", &self.context),
            text("Dockerfile", &self.dockerfile),
            text("VCSRepository", &self.repository),
            text("VCSRevision", &self.revision),
            text("Target", &attributes.target),
            field("Platform", "Platform", list(&attributes.platforms)).omit_empty(),
            field("KeepGitDir", "KeepGitDir", attributes.keep_git_dir).omit_empty(),
            pairs("NamedContexts", &attributes.named_contexts),
            time("StartedAt", self.started),
            time("CompletedAt", self.completed),
            // Templates show it as Go does, JSON has the nanoseconds.
            Field::template_only("Duration", gotime::duration(nanoseconds)),
            Field::json_only("Duration", nanoseconds).omit_empty(),
            text("Status", self.status()),
        ];
        let failure = self.failure.as_ref().map_or(Data::Nil(Nil::Pointer), failure);
        fields.push(field("Error", "Error", failure).omit_empty());
        for (name, count) in [
            ("NumCompletedSteps", self.steps.completed),
            ("NumTotalSteps", self.steps.total),
            ("NumCachedSteps", self.steps.cached),
        ] {
            fields.push(field(name, name, i64::from(count)));
        }
        fields.push(pairs("BuildArgs", &attributes.build_args));
        fields.push(pairs("Labels", &attributes.labels));
        fields.push(field("Config", "Config", self.settings()));
        let materials = self.materials.iter().map(|material| {
            record(
                "history.materialOutput",
                [
                    text("URI", &material.uri),
                    field("Digests", "Digests", list(&material.digests)).omit_empty(),
                ],
            )
        });
        fields.push(field("Materials", "Materials", Data::list(materials)).omit_empty());
        let attachments = self.attachments.iter().map(|attachment| {
            record(
                "history.attachmentOutput",
                [
                    text("Digest", &attachment.descriptor.digest),
                    text("Platform", attachment.platform.as_deref().unwrap_or_default()),
                    text("Type", attachment.kind()),
                ],
            )
        });
        fields.push(field("Attachments", "Attachments", Data::list(attachments)).omit_empty());
        fields.push(field("Errors", "Errors", list(&attributes.errors)).omit_empty());
        record("history.inspectOutput", fields)
    }

    pub(super) fn status(&self) -> &'static str {
        match self.outcome {
            Some(Outcome::Completed) => "completed",
            Some(Outcome::Failed) => "failed",
            Some(Outcome::Canceled) => "canceled",
            Some(Outcome::Running) | None => "running",
        }
    }

    fn settings(&self) -> Data {
        let settings = &self.attributes.settings;
        let text = |name: &'static str, value: &str| field(name, name, value).omit_empty();
        let mut fields = vec![
            text("Network", &settings.network),
            field("ExtraHosts", "ExtraHosts", list(&settings.extra_hosts)).omit_empty(),
            text("Hostname", &settings.hostname),
            text("CgroupParent", &settings.cgroup_parent),
            text("ImageResolveMode", &settings.image_resolve_mode),
            field("MultiPlatform", "MultiPlatform", settings.multi_platform).omit_empty(),
            field("NoCache", "NoCache", settings.no_cache).omit_empty(),
            field("NoCacheFilter", "NoCacheFilter", list(&settings.no_cache_filter)).omit_empty(),
        ];
        fields.extend(
            settings
                .texts
                .iter()
                .map(|setting| text(setting.name, &setting.value)),
        );
        fields.push(pairs("RestRaw", &settings.rest));
        record("history.configOutput", fields)
    }
}

fn failure(failure: &Failure) -> Data {
    let base64 = |name: &'static str, text: &str| {
        let encoded = BASE64_STANDARD.encode(text);
        [
            Field::template_only(name, text),
            Field::json_only(name, encoded).omit_empty(),
        ]
    };
    let mut fields = vec![
        field("Code", "Code", i64::from(failure.code)).omit_empty(),
        field("Message", "Message", &failure.message).omit_empty(),
        field("Name", "Name", &failure.step).omit_empty(),
        field("Logs", "Logs", list(&failure.logs)).omit_empty(),
    ];
    fields.extend(base64("Sources", &failure.sources));
    fields.extend(base64("Stack", &failure.stack));
    record("history.errorOutput", fields)
}

fn list(texts: &[String]) -> Data {
    Data::list(texts)
}

fn pairs(name: &'static str, pairs: &[(String, String)]) -> Field {
    let entries = pairs.iter().map(|(key, value)| {
        record(
            "history.keyValueOutput",
            [
                field("Name", "Name", key).omit_empty(),
                field("Value", "Value", value).omit_empty(),
            ],
        )
    });
    field(name, name, Data::list(entries)).omit_empty()
}

/// With the offset of this machine's time zone.
fn local(time: jiff::Timestamp) -> String {
    let zoned = time.to_zoned(TimeZone::system());
    if zoned.offset().is_zero() {
        return time.to_string();
    }
    zoned.timestamp().display_with_offset(zoned.offset()).to_string()
}
