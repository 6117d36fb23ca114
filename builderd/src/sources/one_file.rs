//! Layers with one file in them.

use std::ffi::OsStr;
use std::fs::File;
use std::path::Path;

use crate::store::LayerDraft;
use crate::store::view::{Overlay, Time, View, ViewError};

/// Of a file whose mode nobody asked for.
const MODE: u32 = 0o600;

/// What a file looks like besides what is in it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Appearance {
    pub mode: Option<u32>,
    pub uid: u32,
    pub gid: u32,
}

impl Appearance {
    /// For the key of a layer.
    pub(super) fn parts(self) -> [String; 3] {
        [
            format!("{:o}", self.mode.unwrap_or(MODE)),
            self.uid.to_string(),
            self.gid.to_string(),
        ]
    }
}

fn overlay(draft: &LayerDraft) -> Result<Overlay, ViewError> {
    Overlay::new(&View::open(&[])?, &draft.upper())
}

pub(super) fn create(draft: &LayerDraft, name: &str) -> Result<File, ViewError> {
    overlay(draft)?
        .folder(Path::new("/"))?
        .create_file(OsStr::new(name))
}

/// Gives the file its looks, and the age of `seconds` since 1970.
pub(super) fn finish(
    draft: &LayerDraft,
    name: &str,
    appearance: Appearance,
    seconds: i64,
) -> Result<(), ViewError> {
    let overlay = overlay(draft)?;
    let root = overlay.folder(Path::new("/"))?;
    let name = OsStr::new(name);
    let time = Time {
        seconds,
        nanoseconds: 0,
    };
    root.set_owner(name, appearance.uid, appearance.gid)?;
    root.set_mode(name, appearance.mode.unwrap_or(MODE))?;
    root.set_time(name, time)?;
    root.set_own_time(time)?;
    overlay.finish()
}
