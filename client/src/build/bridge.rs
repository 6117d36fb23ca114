//! The calls of `LLBBridge`, by which a client drives a build step by step.

use prost::Message as _;
use proto::gateway::llb_bridge_client::LlbBridgeClient;
use proto::gateway::result::Result as Form;
use proto::gateway::{EvaluateRequest, Ref, Result, ReturnRequest, SolveRequest};
use proto::{headers, rpc};
use tonic::metadata::AsciiMetadataValue;
use tonic::transport::Channel;
use tonic::{Request, Status};

#[derive(Clone, Debug)]
pub struct Bridge {
    client: LlbBridgeClient<Channel>,
    build: AsciiMetadataValue,
}

impl Bridge {
    /// Of the build with this reference, which need not have begun yet.
    pub fn new(channel: Channel, reference: &str) -> std::result::Result<Self, Status> {
        let build = AsciiMetadataValue::try_from(reference)
            .map_err(|_| Status::invalid_argument("the build's reference is no header value"))?;
        let client = LlbBridgeClient::new(channel)
            .max_decoding_message_size(proto::tunnel::MAX_MESSAGE)
            .max_encoding_message_size(proto::tunnel::MAX_MESSAGE);
        Ok(Self { client, build })
    }

    fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        request
            .metadata_mut()
            .insert(headers::BUILD_ID, self.build.clone());
        request
    }

    /// Finds out what a request comes to; nothing is computed yet.
    pub async fn solve(&self, request: SolveRequest) -> std::result::Result<Result, Status> {
        let request = SolveRequest {
            // References come with their definitions, and one for each platform.
            allow_result_return: true,
            allow_result_array_ref: true,
            ..request
        };
        let response = self
            .client
            .clone()
            .solve(self.request(request))
            .await?
            .into_inner();
        Ok(response.result.unwrap_or_default())
    }

    /// Has everything that a result refers to computed.
    pub async fn evaluate(&self, result: &Result) -> std::result::Result<(), Status> {
        let references: Vec<&Ref> = match &result.result {
            Some(Form::Ref(one)) => vec![one],
            Some(Form::Refs(map)) => map.refs.values().collect(),
            _ => Vec::new(),
        };
        let evaluations = references
            .into_iter()
            .filter(|reference| !reference.id.is_empty())
            .map(|reference| {
                let request = EvaluateRequest {
                    r#ref: reference.id.clone(),
                };
                let request = self.request(request);
                let mut client = self.client.clone();
                async move { client.evaluate(request).await }
            });
        futures::future::try_join_all(evaluations).await?;
        Ok(())
    }

    /// Ends the part of the build that the client drives; the daemon exports.
    pub async fn give_back(&self, result: Result) -> std::result::Result<(), Status> {
        let request = ReturnRequest {
            result: Some(result),
            ..ReturnRequest::default()
        };
        self.client.clone().r#return(self.request(request)).await?;
        Ok(())
    }

    /// Ends the build with a failure.
    pub async fn fail(&self, reason: &Status) {
        let error = rpc::Status::decode(reason.details())
            .ok()
            .filter(|status| status.code != 0)
            .unwrap_or_else(|| rpc::Status {
                code: reason.code() as i32,
                message: reason.message().to_owned(),
                ..rpc::Status::default()
            });
        let request = ReturnRequest {
            error: Some(error),
            ..ReturnRequest::default()
        };
        // The build may have ended already; then there is nobody to be told.
        drop(self.client.clone().r#return(self.request(request)).await);
    }
}
