//! A frontend: what images run that builds name in their first line (`# syntax=`). Its language has one word, `greet`.
//!
//! It says hello with a file `/greeting` that holds what stands behind the word; the one platform of the image is the
//! daemon's. Any other line is an error.

use std::collections::BTreeMap;

use anyhow::Context as _;
use proto::gateway::llb_bridge_client::LlbBridgeClient;
use proto::gateway::{self, PingRequest, ReadFileRequest, ReturnRequest, result};
use proto::pb;
use serde_json::json;
use tests::llb::{self, Llb};
use tonic::transport::Channel;

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let options = options();
    let stream = tokio::io::join(tokio::io::stdin(), tokio::io::stdout());
    let channel = proto::tunnel::connect(stream).await?;
    let mut bridge = LlbBridgeClient::new(channel);
    let answer = match greet(&mut bridge, &options).await {
        Ok(result) => ReturnRequest {
            result: Some(result),
            error: None,
        },
        Err(error) => ReturnRequest {
            result: None,
            error: Some(proto::rpc::Status {
                code: tonic::Code::InvalidArgument.into(),
                message: format!("{error:#}"),
                details: Vec::new(),
            }),
        },
    };
    bridge.r#return(answer).await?;
    if options.contains_key("build-arg:LINGER") {
        std::future::pending::<()>().await;
    }
    // At the end of `main`, a thread would still wait for input.
    std::process::exit(0);
}

/// What the build was asked for: `BUILDKIT_FRONTEND_OPT_<number>=<key>=<value>`.
fn options() -> BTreeMap<String, String> {
    let variables = std::env::vars().filter(|(name, _)| name.starts_with("BUILDKIT_FRONTEND_OPT_"));
    variables
        .filter_map(|(_, option)| {
            let (key, value) = option.split_once('=')?;
            Some((key.to_owned(), value.to_owned()))
        })
        .collect()
}

async fn greet(
    bridge: &mut LlbBridgeClient<Channel>,
    options: &BTreeMap<String, String>,
) -> anyhow::Result<gateway::Result> {
    bridge.ping(PingRequest::default()).await?;
    let file = options.get("filename").map_or("Dockerfile", String::as_str);
    let local = pb::op::Op::Source(pb::SourceOp {
        identifier: "local://dockerfile".to_owned(),
        attrs: [("local.followpaths".to_owned(), json!([file]).to_string())].into(),
    });
    let folder = solve(bridge, local).await?;
    let read = ReadFileRequest {
        r#ref: folder.id,
        file_path: file.to_owned(),
        ..ReadFileRequest::default()
    };
    let text = bridge.read_file(read).await?.into_inner().data;
    let text = std::str::from_utf8(&text).context("the file is no text")?;
    let mut greeting = String::new();
    for line in text
        .lines()
        .filter(|line| !line.starts_with('#') && !line.is_empty())
    {
        let whom = line
            .strip_prefix("greet ")
            .with_context(|| format!("greeter knows no {line:?}"))?;
        greeting.push_str(&format!("hello, {whom}\n"));
    }
    if let Some(more) = options.get("build-arg:MORE") {
        greeting.push_str(&format!("{more}\n"));
    }
    let make = pb::FileActionMkFile {
        path: "/greeting".to_owned(),
        mode: 0o644,
        data: greeting.into(),
        timestamp: -1,
        ..pb::FileActionMkFile::default()
    };
    let make = pb::op::Op::File(pb::FileOp {
        actions: vec![pb::FileAction {
            input: -1,
            secondary_input: -1,
            output: 0,
            action: Some(pb::file_action::Action::Mkfile(make)),
        }],
    });
    let made = solve(bridge, make).await?;
    let config = json!({
        "architecture": "amd64",
        "os": "linux",
        "config": {"Labels": {"greeter": "yes"}},
        "rootfs": {"type": "layers", "diff_ids": []},
    });
    Ok(gateway::Result {
        result: Some(result::Result::Ref(made)),
        metadata: BTreeMap::from([(
            "containerimage.config".to_owned(),
            config.to_string().into_bytes().into(),
        )]),
        ..gateway::Result::default()
    })
}

/// The result of one operation without inputs.
async fn solve(bridge: &mut LlbBridgeClient<Channel>, operation: pb::op::Op) -> anyhow::Result<gateway::Ref> {
    let mut llb = Llb::default();
    let head = llb.add(operation, Vec::new());
    let answer = bridge.solve(llb::request(llb.with_result(head))).await?;
    Ok(llb::result_of(answer.into_inner()))
}
