//! The history of an image: one entry for each layer and each change of the config, all with times.
//!
//! Times come from the records of the layers, never from the clock, so that a repeated build has the same history.

use std::time::SystemTime;

use registry::image::History;

/// Written where a layer came about without an instruction.
const COMMENT: &str = "buildkit.exporter.image.v0";

/// What is known of a layer, lowest first.
#[derive(Clone, Debug)]
pub(super) struct LayerFacts {
    pub description: String,
    pub created: SystemTime,
}

/// As Go writes times: RFC 3339, with as many digits of a fraction as there are.
pub(super) fn rfc3339(time: SystemTime) -> String {
    jiff::Timestamp::try_from(time).unwrap_or_default().to_string()
}

pub(super) fn from_seconds(seconds: i64) -> String {
    let time = jiff::Timestamp::from_second(seconds).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
    time.to_string()
}

/// Makes the history fit the layers and gives every entry a time.
pub(super) fn complete(mut history: Vec<History>, layers: &[LayerFacts]) -> Vec<History> {
    let mut entries = history.iter().filter(|entry| !entry.empty_layer).count();
    // More entries than layers: a config that was not made for this image. The lowest lose theirs.
    for entry in history.iter_mut().filter(|entry| !entry.empty_layer) {
        if entries <= layers.len() {
            break;
        }
        entry.empty_layer = true;
        entries -= 1;
    }
    for layer in layers.iter().skip(entries) {
        let description = if layer.description.is_empty() {
            "created by buildkit"
        } else {
            &layer.description
        };
        history.push(History {
            created: Some(rfc3339(layer.created)),
            created_by: description.to_owned(),
            comment: COMMENT.to_owned(),
            ..History::default()
        });
    }
    let mut facts = layers.iter();
    for entry in history.iter_mut().filter(|entry| !entry.empty_layer) {
        let layer = facts.next();
        if entry.created.is_none() {
            entry.created = layer.map(|layer| rfc3339(layer.created));
        }
    }
    fill_gaps(&mut history);
    history
}

/// Entries without a layer take the time of the first new layer, later ones that of the layer before them.
fn fill_gaps(history: &mut [History]) {
    let first_gap = history.iter().position(|entry| entry.created.is_none());
    let Some(first_gap) = first_gap else { return };
    let (before, after) = history.split_at(first_gap);
    let next = after.iter().find_map(|entry| entry.created.clone());
    let mut current = next.or_else(|| before.iter().rev().find_map(|entry| entry.created.clone()));
    for entry in history.iter_mut().skip(first_gap) {
        match &entry.created {
            Some(created) => current = Some(created.clone()),
            None => entry.created.clone_from(&current),
        }
    }
}

/// No time after the epoch, except in what came with the base image.
pub(super) fn clamp(history: &mut [History], base: &[History], epoch: i64) {
    let unchanged = history
        .iter()
        .zip(base)
        .take_while(|(ours, base)| ours == base)
        .count();
    for entry in history.iter_mut().skip(unchanged) {
        entry.created = Some(clamped(entry.created.as_deref(), epoch));
    }
}

/// `time`, or the epoch if that is earlier.
pub(super) fn clamped(time: Option<&str>, epoch: i64) -> String {
    let earlier = time.and_then(|text| {
        let time: jiff::Timestamp = text.parse().ok()?;
        (time.as_second() < epoch).then(|| text.to_owned())
    });
    earlier.unwrap_or_else(|| from_seconds(epoch))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn layer(seconds: u64, description: &str) -> LayerFacts {
        LayerFacts {
            description: description.to_owned(),
            created: SystemTime::UNIX_EPOCH + Duration::from_secs(seconds),
        }
    }

    fn entry(created: Option<i64>, by: &str, empty_layer: bool) -> History {
        History {
            created: created.map(from_seconds),
            created_by: by.to_owned(),
            empty_layer,
            ..History::default()
        }
    }

    fn times(history: &[History]) -> Vec<Option<i64>> {
        let seconds = |text: &String| text.parse::<jiff::Timestamp>().unwrap().as_second();
        history
            .iter()
            .map(|entry| entry.created.as_ref().map(seconds))
            .collect()
    }

    #[test]
    fn entries_take_the_times_of_their_layers() {
        let history = vec![
            entry(Some(5), "base", false),
            entry(None, "ENV", true),
            entry(None, "RUN a", false),
            entry(None, "CMD", true),
            entry(None, "RUN b", false),
            entry(None, "LABEL", true),
        ];
        let completed = complete(history, &[layer(99, ""), layer(20, ""), layer(30, "")]);
        assert_eq!(
            times(&completed),
            [Some(5), Some(20), Some(20), Some(20), Some(30), Some(30)]
        );
    }

    #[test]
    fn layers_without_an_entry_get_one_and_entries_without_a_layer_lose_theirs() {
        let completed = complete(vec![entry(None, "x", true)], &[layer(7, "local"), layer(8, "")]);
        assert_eq!(times(&completed), [Some(7), Some(7), Some(8)]);
        assert_eq!(completed[1].created_by, "local");
        assert_eq!(completed[2].created_by, "created by buildkit");
        assert_eq!(completed[2].comment, "buildkit.exporter.image.v0");

        let completed = complete(
            vec![entry(Some(1), "a", false), entry(None, "b", false)],
            &[layer(7, "")],
        );
        assert!(completed[0].empty_layer && !completed[1].empty_layer);
        assert_eq!(times(&completed), [Some(1), Some(7)]);
        assert_eq!(complete(vec![entry(None, "x", true)], &[])[0].created, None);
    }

    #[test]
    fn an_epoch_spares_only_the_base() {
        let base = vec![entry(Some(100), "base", false)];
        let mut history = vec![
            base[0].clone(),
            entry(Some(200), "RUN", false),
            entry(Some(10), "COPY", false),
        ];
        clamp(&mut history, &base, 50);
        assert_eq!(times(&history), [Some(100), Some(50), Some(10)]);
        let written = |millis| rfc3339(SystemTime::UNIX_EPOCH + Duration::from_millis(millis));
        assert_eq!(written(1000), "1970-01-01T00:00:01Z");
        assert_eq!(written(1500), "1970-01-01T00:00:01.5Z");
    }
}
