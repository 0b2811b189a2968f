//! A folder of files that appear together: nothing of it can be seen until all of it is written.
//!
//! A new folder takes its name in one step. In a folder that is there, each file takes its name in one step, and the last of them is that which tells whether all
//! belong together; other files stay. It decides nothing about what is written.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use crate::output::Output;

/// A folder being made. Without [`Folder::publish`] it leaves nothing behind.
#[derive(Debug)]
pub(super) struct Folder {
    dir: PathBuf,
    /// Where files lie until then, without names: in the folder, or beside where it will be.
    stage: PathBuf,
    is_new: bool,
    files: Vec<(String, Output)>,
}

impl Folder {
    /// Starts a folder that will be, or is already, at `dir`; the directory that it lies in must exist.
    pub(super) fn create(dir: &Path) -> io::Result<Folder> {
        let is_new = match fs::metadata(dir) {
            Ok(meta) if meta.is_dir() => false,
            Ok(_) => return Err(io::ErrorKind::NotADirectory.into()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => true,
            Err(error) => return Err(error),
        };
        let beside = dir.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let stage = if is_new { beside } else { dir };
        Ok(Folder { dir: dir.to_owned(), stage: stage.to_owned(), is_new, files: Vec::new() })
    }

    /// Where a file of that name will be.
    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// Starts a file.
    pub(super) fn file(&mut self, name: &str) -> io::Result<&File> {
        let output = Output::create(&self.stage.join(name))?;
        self.files.push((name.to_owned(), output));
        Ok(self.files[self.files.len() - 1].1.file())
    }

    /// Gives the files their names, in the order in which they were started.
    pub(super) fn publish(self) -> io::Result<()> {
        // What takes time comes before the first name.
        for (_, output) in &self.files {
            output.file().sync_all()?;
        }
        if !self.is_new {
            name(self.files, &self.dir)?;
            return File::open(&self.dir)?.sync_all();
        }
        let permissions = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        let staged =
            tempfile::Builder::new().prefix(".iso-builder-").permissions(permissions).tempdir_in(&self.stage)?;
        name(self.files, staged.path())?;
        File::open(staged.path())?.sync_all()?;
        fs::rename(staged.path(), &self.dir)?;
        // It has another name by now, and stays.
        drop(staged.keep());
        File::open(&self.stage)?.sync_all()
    }
}

fn name(files: Vec<(String, Output)>, dir: &Path) -> io::Result<()> {
    files.into_iter().try_for_each(|(name, output)| output.publish_as(&dir.join(name)))
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn fill(dir: &Path, texts: &[(&str, &str)]) -> Folder {
        let mut folder = Folder::create(dir).unwrap();
        for (name, text) in texts {
            folder.file(name).unwrap().write_all(text.as_bytes()).unwrap();
        }
        folder
    }

    fn names(dir: &Path) -> Vec<String> {
        let mut names: Vec<_> =
            fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn a_new_folder_appears_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("release");
        drop(fill(&path, &[("a", "1")]));
        assert!(names(dir.path()).is_empty());
        fill(&path, &[("a", "1"), ("b", "2")]).publish().unwrap();
        assert_eq!(
            (names(dir.path()), names(&path)),
            (vec!["release".to_owned()], vec!["a".to_owned(), "b".to_owned()])
        );
    }

    #[test]
    fn in_a_folder_that_is_there_files_take_each_others_places() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("mine"), "kept").unwrap();
        fs::write(dir.path().join("a"), "old").unwrap();
        drop(fill(dir.path(), &[("a", "half")]));
        assert_eq!(fs::read_to_string(dir.path().join("a")).unwrap(), "old");
        fill(dir.path(), &[("a", "new")]).publish().unwrap();
        assert_eq!(fs::read_to_string(dir.path().join("a")).unwrap(), "new");
        assert_eq!(names(dir.path()), ["a", "mine"]);
        assert_eq!(Folder::create(&dir.path().join("a")).unwrap_err().kind(), io::ErrorKind::NotADirectory);
    }
}
