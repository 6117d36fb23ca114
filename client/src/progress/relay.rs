//! What one build of several tells, on its way to the display that shows all of them.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};

use super::{Sender, Status};

/// Puts the build's name before its steps, and sets the daemon's clock right.
#[derive(Clone, Debug)]
pub struct Relay {
    sender: Sender,
    prefix: Option<Arc<str>>,
    began: Timestamp,
    /// How far the daemon's clock is ahead: the first step starts when the build begins.
    ahead: Option<SignedDuration>,
}

impl Relay {
    pub fn new(sender: Sender) -> Self {
        Self {
            sender,
            prefix: None,
            began: Timestamp::now(),
            ahead: None,
        }
    }

    pub fn named(self, name: &str) -> Self {
        Self {
            prefix: Some(name.into()),
            ..self
        }
    }

    /// A display that has ended shows nothing more; the build goes on.
    pub async fn send(&mut self, mut status: Status) {
        self.rename(&mut status);
        self.set_clock(&mut status);
        drop(self.sender.send(status).await);
    }

    fn rename(&self, status: &mut Status) {
        let Some(prefix) = &self.prefix else { return };
        let prefixed = |name: &str| match name.strip_prefix('[') {
            Some(rest) => format!("[{prefix} {rest}"),
            None => format!("[{prefix}] {name}"),
        };
        for vertex in &mut status.vertexes {
            vertex.name = prefixed(&vertex.name);
            if let Some(group) = &mut vertex.group {
                group.name = prefixed(&group.name);
            }
        }
    }

    fn set_clock(&mut self, status: &mut Status) {
        if self.ahead.is_none() {
            let first = status.vertexes.iter().find_map(|vertex| vertex.started);
            self.ahead = first.map(|first| first.duration_since(self.began));
        }
        let Some(ahead) = self.ahead else { return };
        // A time beyond what the calendar knows stays as it is.
        let set = |time: &mut Timestamp| *time = time.checked_sub(ahead).unwrap_or(*time);
        let set_some = |time: &mut Option<Timestamp>| {
            if let Some(time) = time {
                set(time);
            }
        };
        for vertex in &mut status.vertexes {
            set_some(&mut vertex.started);
            set_some(&mut vertex.completed);
        }
        for part in &mut status.statuses {
            set(&mut part.timestamp);
            set_some(&mut part.started);
            set_some(&mut part.completed);
        }
        for log in &mut status.logs {
            set(&mut log.timestamp);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::progress::Vertex;

    #[tokio::test]
    async fn steps_are_named_and_clocks_agree() {
        let (sender, mut receiver) = tokio::sync::mpsc::channel(1);
        let mut relay = Relay::new(sender).named("app");
        let began = relay.began;
        let vertex = |name: &str, seconds: i64| Vertex {
            name: name.to_owned(),
            started: Some(Timestamp::from_second(seconds).unwrap()),
            ..Vertex::default()
        };
        let status = Status {
            vertexes: vec![vertex("[linux/arm64 1/2] RUN x", 100), vertex("exporting", 103)],
            ..Status::default()
        };
        relay.send(status).await;
        let shown = receiver.recv().await.unwrap().vertexes;
        assert_eq!(shown[0].name, "[app linux/arm64 1/2] RUN x");
        assert_eq!(shown[1].name, "[app] exporting");
        assert_eq!(shown[0].started, Some(began));
        assert_eq!(shown[1].started, Some(began + SignedDuration::from_secs(3)));
    }
}
