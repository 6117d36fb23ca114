//! How a user names a record: `^1` counts back from the latest, anything else is an id or its beginning, alone or as
//! `BUILDER/NODE/ID`.

use super::HistoryError;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reference {
    /// So many builds before the latest.
    Back(usize),
    Id {
        /// Builder and node.
        place: Option<(String, String)>,
        id: String,
    },
}

impl Reference {
    /// The latest record if nothing is named.
    pub fn parse(text: &str) -> Result<Self, HistoryError> {
        if text.is_empty() {
            return Ok(Self::Back(0));
        }
        if let Some(offset) = text.strip_prefix('^') {
            return offset.parse().map(Self::Back).map_err(|_| HistoryError::Offset {
                text: text.to_owned(),
            });
        }
        let parts: Vec<&str> = text.split('/').collect();
        match parts[..] {
            [id] => Ok(Self::Id {
                place: None,
                id: id.to_owned(),
            }),
            [builder, node, id] if !(builder.is_empty() || node.is_empty() || id.is_empty()) => {
                Ok(Self::Id {
                    place: Some((builder.to_owned(), node.to_owned())),
                    id: id.to_owned(),
                })
            }
            _ => Err(HistoryError::Reference {
                text: text.to_owned(),
            }),
        }
    }

    /// The builder, if the reference names it.
    pub fn builder(&self) -> Option<&str> {
        match self {
            Self::Id {
                place: Some((builder, _)),
                ..
            } => Some(builder),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_offsets_ids_or_full_names() {
        let id = |place: Option<(&str, &str)>, id: &str| Reference::Id {
            place: place.map(|(builder, node)| (builder.to_owned(), node.to_owned())),
            id: id.to_owned(),
        };
        for (text, reference) in [
            ("", Reference::Back(0)),
            ("^0", Reference::Back(0)),
            ("^12", Reference::Back(12)),
            ("abc", id(None, "abc")),
            ("b/b0/abc", id(Some(("b", "b0")), "abc")),
        ] {
            assert_eq!(Reference::parse(text).unwrap(), reference, "{text}");
        }
        for text in ["^", "^x", "^-1", "a/b", "a//b", "a/b/c/d"] {
            assert!(Reference::parse(text).is_err(), "{text}");
        }
    }
}
