//! Watching the configuration: whether a file was replaced or written in place, and whether it has come to rest.
//! A look at a few inodes four times a second needs no notification interface, and misses no kind of change.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Between two looks. A change counts once two looks saw the same: a file that is still being written waits.
pub const LOOK: Duration = Duration::from_millis(200);

type Fingerprint = Vec<(PathBuf, u64, i64, i64, u64)>;

fn fingerprint(path: &Path, also: &[PathBuf]) -> Fingerprint {
    let mut files = onehop_config::files(path).unwrap_or_default();
    if !files.is_empty() {
        files.extend_from_slice(also);
    }
    let print = |file: PathBuf| {
        let data = std::fs::metadata(&file).ok()?;
        Some((file, data.ino(), data.mtime(), data.mtime_nsec(), data.size()))
    };
    files.into_iter().filter_map(print).collect()
}

/// One watched path.
pub struct Watch {
    path: PathBuf,
    /// The certificates, keys and bundles that the configuration names.
    also: Vec<PathBuf>,
    loaded: Fingerprint,
    last: Fingerprint,
}

impl Watch {
    /// From what is there now.
    pub fn new(path: &Path, also: Vec<PathBuf>) -> Watch {
        let now = fingerprint(path, &also);
        Watch { path: path.to_owned(), also, loaded: now.clone(), last: now }
    }

    /// The path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether it changed since it was loaded last and has come to rest. True once per change.
    pub fn look(&mut self) -> bool {
        let now = fingerprint(&self.path, &self.also);
        let at_rest = now == self.last;
        self.last = now;
        // A file that is gone for a moment (removed and written anew) is no change yet.
        if !at_rest || self.last.is_empty() || self.last == self.loaded {
            return false;
        }
        self.loaded = self.last.clone();
        true
    }

    /// It was loaded for another reason.
    pub fn loaded(&mut self) {
        self.last = fingerprint(&self.path, &self.also);
        self.loaded = self.last.clone();
    }

    /// The configuration in force names these files.
    pub fn names(&mut self, also: Vec<PathBuf>) {
        if also != self.also {
            self.also = also;
            self.loaded();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replaced_and_written_files_are_seen_once_at_rest() {
        let folder = std::env::temp_dir().join(format!("onehop-watch-{}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("a folder");
        let path = folder.join("c.toml");
        std::fs::write(&path, "one").expect("writes");
        let mut watch = Watch::new(&path, Vec::new());
        assert!(!watch.look());
        std::fs::write(&path, "three").expect("writes");
        assert!(!watch.look(), "it may still be written");
        assert!(watch.look());
        assert!(!watch.look());
        let other = folder.join("new");
        std::fs::write(&other, "other").expect("writes");
        std::fs::rename(&other, &path).expect("replaces");
        assert!(!watch.look());
        assert!(watch.look());
        std::fs::remove_file(&path).expect("removes");
        assert!(!watch.look() && !watch.look(), "a missing file is no configuration");
        std::fs::remove_dir_all(&folder).expect("cleans up");
    }
}
