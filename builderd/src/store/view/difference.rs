//! What must lie on one view to get another, as a layer.
//!
//! Unlike the layers of steps it never hides a folder as a whole: every name that is gone has a whiteout of its own. So
//! the layer means the same on top of other files too, which is what merges put it on.

use std::cell::OnceCell;
use std::collections::{BTreeMap, HashMap};
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use super::copy_contents;
use super::{Attributes, Directory, Entry, Folder, Kind, Metadata, Overlay, View, ViewError};

/// The one attribute besides owner and mode whose change makes a file another one, as in image exports.
const CAPABILITIES: &str = "security.capability";

/// Writes the difference into the empty folder `into`, which becomes an immutable layer: files may be shared with others.
pub fn write_difference(lower: &View, upper: &View, into: &Path) -> Result<(), ViewError> {
    write(lower, upper, into, Sharing::Allowed)
}

/// Copies a view into the empty folder `into`, to be changed there.
pub fn write_copy(view: &View, into: &Path) -> Result<(), ViewError> {
    write(&View::open(&[])?, view, into, Sharing::Forbidden)
}

/// Whether a file may be a further name of one in an immutable layer.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Sharing {
    Allowed,
    Forbidden,
}

fn write(lower: &View, upper: &View, into: &Path, sharing: Sharing) -> Result<(), ViewError> {
    let overlay = Overlay::new(&View::open(&[])?, into)?;
    let root = overlay.folder(Path::new("/"))?;
    stamp_folder(&root, upper.root())?;
    let place = Place {
        above: None,
        directory: Rc::new(View::open(upper.folders())?.into_root()),
        made: OnceCell::from(root),
    };
    let mut difference = Difference {
        lower,
        upper,
        overlay: &overlay,
        sharing,
        links: HashMap::new(),
        pending: Vec::new(),
    };
    let below = Rc::new(View::open(lower.folders())?.into_root());
    difference.compare(Some(&below), &Rc::new(place))?;
    while let Some(pair) = difference.pending.pop() {
        difference.enter(&pair)?;
    }
    overlay.finish()
}

/// Whether a layer on `below` is already what [`write_difference`] would make of it: it hides no folder as a whole, and
/// has nothing that is the same below, as steps leave behind that move a file away and back.
pub fn is_difference(layer: &Path, below: &View) -> Result<bool, ViewError> {
    let root = Rc::new(View::open(&[layer.to_owned()])?.into_root());
    let below = Rc::new(View::open(below.folders())?.into_root());
    let mut pending = vec![(root, Some(below))];
    while let Some((folder, below)) = pending.pop() {
        for entry in folder.entries()? {
            let same_name = match &below {
                Some(below) => below.lookup(entry.name())?,
                None => None,
            };
            if !entry.metadata().is_dir() {
                if let Some(lower) = &same_name
                    && is_same(lower, &entry)?
                {
                    return Ok(false);
                }
                continue;
            }
            let inner = folder.open(&entry)?;
            if inner.is_opaque()? {
                return Ok(false);
            }
            let lower = match (&below, same_name) {
                (Some(below), Some(lower)) if lower.metadata().is_dir() => Some(Rc::new(below.open(&lower)?)),
                _ => None,
            };
            pending.push((Rc::new(inner), lower));
        }
    }
    Ok(true)
}

/// A folder of the upper view, and its place in the layer once something in it is different.
struct Place {
    above: Option<Rc<Self>>,
    directory: Rc<Directory>,
    made: OnceCell<Rc<Folder>>,
}

impl Place {
    fn folder(&self) -> Result<Rc<Folder>, ViewError> {
        if let Some(made) = self.made.get() {
            return Ok(Rc::clone(made));
        }
        let (Some(above), Some(name)) = (&self.above, self.directory.path().file_name()) else {
            return Err(ViewError::NotADirectory {
                path: self.directory.path().to_owned(),
            });
        };
        let folder = above.folder()?.create_folder(name)?;
        stamp_folder(&folder, &self.directory)?;
        Ok(Rc::clone(self.made.get_or_init(|| folder)))
    }
}

/// Folders of one name that are still to be compared.
struct Pair {
    lower: Option<(Rc<Directory>, Entry)>,
    above: Rc<Place>,
    upper: Entry,
}

struct Difference<'a> {
    lower: &'a View,
    upper: &'a View,
    overlay: &'a Overlay,
    sharing: Sharing,
    /// Files with several names that the layer has already, by where they come from.
    links: HashMap<(usize, (u64, u64)), PathBuf>,
    /// A list and no recursion: how deep folders are nested is up to their makers.
    pending: Vec<Pair>,
}

impl Difference<'_> {
    fn enter(&mut self, pair: &Pair) -> Result<(), ViewError> {
        let directory = pair.above.directory.open(&pair.upper)?;
        let below = match &pair.lower {
            Some((parent, entry)) if entry.metadata().is_dir() => Some(Rc::new(parent.open(entry)?)),
            _ => None,
        };
        if let Some(below) = &below
            && self.is_shared(below, &directory)
        {
            return Ok(());
        }
        let place = Rc::new(Place {
            above: Some(Rc::clone(&pair.above)),
            directory: Rc::new(directory),
            made: OnceCell::new(),
        });
        let unchanged = match &below {
            Some(below) => {
                is_like(below.metadata(), pair.upper.metadata())
                    && capabilities(&below.attributes()?) == capabilities(&place.directory.attributes()?)
            }
            None => false,
        };
        if !unchanged {
            place.folder()?;
        }
        self.compare(below.as_ref(), &place)
    }

    fn compare(&mut self, below: Option<&Rc<Directory>>, place: &Rc<Place>) -> Result<(), ViewError> {
        let mut lower: BTreeMap<OsString, Entry> = BTreeMap::new();
        if let Some(below) = below {
            for entry in below.entries()? {
                lower.insert(entry.name().to_owned(), entry);
            }
        }
        for upper in place.directory.entries()? {
            let lower = lower.remove(upper.name());
            if upper.metadata().is_dir() {
                self.pending.push(Pair {
                    lower: below.map(Rc::clone).zip(lower),
                    above: Rc::clone(place),
                    upper,
                });
                continue;
            }
            if let Some(lower) = lower
                && self.is_equal(&lower, &upper)?
            {
                continue;
            }
            self.take(&*place.folder()?, &upper)?;
        }
        for name in lower.keys() {
            place.folder()?.hide(name)?;
        }
        Ok(())
    }

    /// Folders that the same layers make up have the same in them.
    fn is_shared(&self, lower: &Directory, upper: &Directory) -> bool {
        let lower = lower.layers().map(|layer| self.lower.folders().get(layer));
        lower.eq(upper.layers().map(|layer| self.upper.folders().get(layer)))
    }

    fn is_equal(&self, lower: &Entry, upper: &Entry) -> Result<bool, ViewError> {
        if self.lower.folders().get(lower.layer()) == self.upper.folders().get(upper.layer()) {
            return Ok(true);
        }
        is_same(lower, upper)
    }

    /// Puts anything but a folder into the layer.
    fn take(&mut self, folder: &Folder, entry: &Entry) -> Result<(), ViewError> {
        let (name, metadata) = (entry.name(), entry.metadata());
        if metadata.kind == Kind::Regular && metadata.links > 1 {
            let key = (entry.layer(), metadata.inode);
            if let Some(first) = self.links.get(&key)
                && let (Some(parent), Some(first_name)) = (first.parent(), first.file_name())
            {
                return folder.create_link(name, &*self.overlay.folder(parent)?, first_name);
            }
            self.links.insert(key, folder.path().join(name));
        }
        match metadata.kind {
            Kind::Regular => {
                if self.sharing == Sharing::Allowed && folder.adopt(name, entry)? {
                    return Ok(());
                }
                let mut to = folder.create_file(name)?;
                copy_contents(&mut entry.open_file()?, &mut to, metadata.size).map_err(|source| {
                    ViewError::Write {
                        path: entry.path().to_owned(),
                        source,
                    }
                })?;
            }
            Kind::Symlink => folder.create_symlink(name, &entry.read_link()?)?,
            _ => folder.create_node(name, metadata)?,
        }
        folder.set_owner(name, metadata.uid, metadata.gid)?;
        if metadata.kind != Kind::Symlink {
            folder.set_mode(name, metadata.mode)?;
        }
        folder.set_attributes(name, &entry.attributes()?)?;
        folder.set_time(name, metadata.modified)
    }
}

fn stamp_folder(folder: &Folder, source: &Directory) -> Result<(), ViewError> {
    let metadata = source.metadata();
    folder.set_own_owner(metadata.uid, metadata.gid)?;
    folder.set_own_mode(metadata.mode)?;
    folder.set_own_attributes(&source.attributes()?)?;
    folder.set_own_time(metadata.modified)
}

/// Whether two files of one name, in different layers, are the same.
fn is_same(lower: &Entry, upper: &Entry) -> Result<bool, ViewError> {
    let (before, after) = (lower.metadata(), upper.metadata());
    if !is_like(before, after)
        || before.modified.seconds != after.modified.seconds
        || capabilities(&lower.attributes()?) != capabilities(&upper.attributes()?)
    {
        return Ok(false);
    }
    let nanoseconds = (before.modified.nanoseconds, after.modified.nanoseconds);
    match after.kind {
        Kind::Symlink => Ok(lower.read_link()? == upper.read_link()?),
        Kind::Regular if before.size != after.size => Ok(false),
        Kind::Regular if before.size == 0 => Ok(true),
        // Archives keep whole seconds only, which says too little.
        Kind::Regular if nanoseconds == (0, 0) => have_equal_bytes(lower.open_file()?, upper.open_file()?)
            .map_err(|source| ViewError::Read {
                path: upper.path().to_owned(),
                source,
            }),
        _ => Ok(nanoseconds.0 == nanoseconds.1),
    }
}

fn is_like(before: &Metadata, after: &Metadata) -> bool {
    let of = |metadata: &Metadata| {
        (
            metadata.kind,
            metadata.mode,
            metadata.uid,
            metadata.gid,
            metadata.device,
        )
    };
    of(before) == of(after)
}

fn capabilities(attributes: &Attributes) -> Option<&[u8]> {
    let of_files = attributes.iter().find(|(name, _)| name == CAPABILITIES);
    of_files.map(|(_, value)| value.as_slice())
}

fn have_equal_bytes(mut one: File, mut other: File) -> io::Result<bool> {
    let (mut left, mut right) = (vec![0; 64 << 10], vec![0; 64 << 10]);
    loop {
        let count = one.read(&mut left)?;
        if count == 0 {
            return Ok(other.read(&mut right)? == 0);
        }
        match other.read_exact(&mut right[..count]) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(false),
            read => read?,
        }
        if left[..count] != right[..count] {
            return Ok(false);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};

    use super::super::attributes;
    use super::*;

    struct Layers(tempfile::TempDir);

    impl Layers {
        fn new() -> Self {
            Self(tempfile::tempdir().unwrap())
        }

        fn layer(&self, name: &str, files: &[(&str, &str)]) -> PathBuf {
            let layer = self.0.path().join(name);
            fs::create_dir(&layer).unwrap();
            for (path, contents) in files {
                let path = layer.join(path);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, contents).unwrap();
            }
            layer
        }

        fn difference(&self, lower: &[&PathBuf], upper: &[&PathBuf]) -> PathBuf {
            let open =
                |folders: &[&PathBuf]| View::open(&folders.iter().copied().cloned().collect::<Vec<_>>());
            let into = self.layer("difference", &[]);
            write_difference(&open(lower).unwrap(), &open(upper).unwrap(), &into).unwrap();
            into
        }
    }

    /// Names in the folder, with `-` before those that hide one.
    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(folder)
            .unwrap()
            .map(|item| {
                let item = item.unwrap();
                let name = item.file_name().into_string().unwrap();
                let hidden = item.file_type().unwrap().is_char_device();
                if hidden { format!("-{name}") } else { name }
            })
            .collect();
        names.sort();
        names
    }

    #[test]
    fn only_what_differs_is_in_the_layer() {
        let layers = Layers::new();
        let base = layers.layer(
            "base",
            &[("same/deep/file", "1"), ("gone", "2"), ("mixed/old", "3")],
        );
        let top = layers.layer("top", &[("mixed/new", "4"), ("added/file", "5")]);
        let bare = layers.layer("bare", &[("mixed/old", "3"), ("same/deep/file", "1")]);
        let file = fs::File::open(base.join("mixed/old")).unwrap();
        let time = file.metadata().unwrap().modified().unwrap();
        for copy in ["mixed/old", "same/deep/file"] {
            let copy = fs::File::options().write(true).open(bare.join(copy)).unwrap();
            copy.set_modified(time).unwrap();
        }
        let original = fs::File::options()
            .write(true)
            .open(base.join("same/deep/file"))
            .unwrap();
        original.set_modified(time).unwrap();
        let made = layers.difference(&[&base], &[&bare, &top]);
        assert_eq!(names(&made), ["-gone", "added", "mixed"]);
        assert_eq!(names(&made.join("mixed")), ["new"]);
        assert_eq!(names(&made.join("added")), ["file"]);
    }

    #[test]
    fn a_hidden_folder_becomes_hidden_names() {
        let layers = Layers::new();
        let base = layers.layer("base", &[("dir/a", "1"), ("dir/sub/b", "2"), ("dir/keep", "3")]);
        let top = layers.layer("top", &[("dir/keep", "another"), ("dir/sub/c", "5")]);
        let is_difference = |layer: &Path| {
            let below = View::open(std::slice::from_ref(&base)).unwrap();
            super::is_difference(layer, &below).unwrap()
        };
        assert!(is_difference(&top));
        attributes::set_opaque(fs::File::open(top.join("dir")).unwrap()).unwrap();
        assert!(!is_difference(&top));
        let made = layers.difference(&[&base], &[&base, &top]);
        assert!(is_difference(&made));
        assert_eq!(names(&made.join("dir")), ["-a", "keep", "sub"]);
        assert_eq!(names(&made.join("dir/sub")), ["-b", "c"]);
    }

    #[test]
    fn a_file_that_came_back_is_no_difference() {
        let layers = Layers::new();
        let base = layers.layer("base", &[("dir/moved", "1"), ("other/kept", "2")]);
        let top = layers.layer("top", &[("dir/moved", "1"), ("other/new", "3")]);
        let time = fs::metadata(base.join("dir/moved")).unwrap().modified().unwrap();
        let copy = fs::File::options().write(true).open(top.join("dir/moved"));
        copy.unwrap().set_modified(time).unwrap();
        assert!(!is_difference(&top, &View::open(std::slice::from_ref(&base)).unwrap()).unwrap());
        let made = layers.difference(&[&base], &[&base, &top]);
        assert_eq!(names(&made), ["other"]);
        assert_eq!(names(&made.join("other")), ["new"]);
    }

    #[test]
    fn a_copy_shares_nothing() {
        let layers = Layers::new();
        let top = layers.layer("top", &[("dir/file", "1")]);
        let copy = layers.layer("copy", &[]);
        write_copy(&View::open(std::slice::from_ref(&top)).unwrap(), &copy).unwrap();
        fs::write(copy.join("dir/file"), "2").unwrap();
        assert_eq!(fs::read_to_string(top.join("dir/file")).unwrap(), "1");
    }

    #[test]
    fn names_of_one_file_stay_names_of_one_file() {
        let layers = Layers::new();
        let top = layers.layer("top", &[("one", "1")]);
        fs::hard_link(top.join("one"), top.join("two")).unwrap();
        let made = layers.difference(&[], &[&top]);
        let inode = |name: &str| fs::metadata(made.join(name)).unwrap().ino();
        assert_eq!(inode("one"), inode("two"));
    }
}
