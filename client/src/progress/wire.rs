//! From the daemon's status messages to our own.

use jiff::Timestamp;
use proto::control;

use super::status::{
    Position, ProgressGroup, Range, SourceInfo, Status, Vertex, VertexLog, VertexStatus, VertexWarning,
};

impl From<control::StatusResponse> for Status {
    fn from(message: control::StatusResponse) -> Self {
        Self {
            vertexes: message.vertexes.into_iter().map(Vertex::from).collect(),
            statuses: message.statuses.into_iter().map(VertexStatus::from).collect(),
            logs: message.logs.into_iter().map(VertexLog::from).collect(),
            warnings: message.warnings.into_iter().map(VertexWarning::from).collect(),
        }
    }
}

impl From<control::Vertex> for Vertex {
    fn from(vertex: control::Vertex) -> Self {
        Self {
            digest: vertex.digest,
            inputs: vertex.inputs,
            name: vertex.name,
            started: vertex.started.and_then(time),
            completed: vertex.completed.and_then(time),
            cached: vertex.cached,
            error: vertex.error,
            group: vertex.progress_group.map(|group| ProgressGroup {
                id: group.id,
                name: group.name,
                weak: group.weak,
            }),
        }
    }
}

impl From<control::VertexStatus> for VertexStatus {
    fn from(status: control::VertexStatus) -> Self {
        Self {
            id: status.id,
            vertex: status.vertex,
            name: status.name,
            total: status.total,
            current: status.current,
            timestamp: status.timestamp.and_then(time).unwrap_or_default(),
            started: status.started.and_then(time),
            completed: status.completed.and_then(time),
        }
    }
}

impl From<control::VertexLog> for VertexLog {
    fn from(log: control::VertexLog) -> Self {
        Self {
            vertex: log.vertex,
            stream: log.stream,
            data: log.msg.to_vec(),
            timestamp: log.timestamp.and_then(time).unwrap_or_default(),
        }
    }
}

impl From<control::VertexWarning> for VertexWarning {
    fn from(warning: control::VertexWarning) -> Self {
        Self {
            vertex: warning.vertex,
            level: warning.level,
            short: warning.short.to_vec(),
            detail: warning.detail.iter().map(|line| line.to_vec()).collect(),
            url: warning.url,
            source: warning.info.map(|info| SourceInfo {
                filename: info.filename,
                data: info.data.to_vec(),
                language: info.language,
            }),
            ranges: warning.ranges.into_iter().map(range).collect(),
        }
    }
}

fn range(range: proto::pb::Range) -> Range {
    let position = |position: Option<proto::pb::Position>| {
        position.map_or_else(Position::default, |position| Position {
            line: position.line,
            character: position.character,
        })
    };
    Range {
        start: position(range.start),
        end: position(range.end),
    }
}

/// `None` for a time that no clock can show.
fn time(time: prost_types::Timestamp) -> Option<Timestamp> {
    Timestamp::new(time.seconds, time.nanos).ok()
}
