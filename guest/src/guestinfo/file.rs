//! Guestinfo in a plain file in VMX syntax: for tests, and for who wants to see what a guest would do.

use std::fs;
use std::io;
use std::path::PathBuf;

use wire::vmx::Dictionary;

use super::{Store, StoreError};

/// A file of keys.
#[derive(Debug)]
pub struct FileStore(PathBuf);

impl FileStore {
    pub fn new(path: impl Into<PathBuf>) -> FileStore {
        FileStore(path.into())
    }

    fn name(&self) -> String {
        self.0.display().to_string()
    }

    /// A new file takes the old one's place: nobody reads half of it.
    fn replace(&self, text: &str) -> io::Result<()> {
        let new = self.0.with_extension("new");
        fs::write(&new, text)?;
        fs::rename(&new, &self.0)
    }
}

impl Store for FileStore {
    fn read(&self) -> Result<Dictionary, StoreError> {
        let text =
            fs::read_to_string(&self.0).map_err(|source| StoreError::Unreadable { from: self.name(), source })?;
        Dictionary::parse(&text).map_err(|source| StoreError::Malformed { from: self.name(), source })
    }

    fn is_writable(&self) -> bool {
        true
    }

    fn set(&mut self, key: &str, value: &str) -> Result<(), StoreError> {
        let mut keys = self.read()?;
        keys.set(key, value);
        let place = self.name();
        self.replace(&keys.to_string()).map_err(|source| StoreError::Unwritable { key: key.into(), place, source })
    }

    fn freeze(&mut self) -> Result<Dictionary, StoreError> {
        Err(StoreError::NoClones("a file of keys"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_set_is_read_beside_what_was_there() {
        let path = std::env::temp_dir().join(format!("tether-store-{}", std::process::id()));
        let mut store = FileStore::new(&path);
        assert!(matches!(store.read(), Err(StoreError::Unreadable { .. })));
        fs::write(&path, "guestinfo.vice./common/id = \"3f0c\"\n").unwrap();
        let json = r#"{"generation":1,"state":"running"}"#;
        store.set("guestinfo.vice..status", json).unwrap();
        assert_eq!(store.get("guestinfo.vice..status").unwrap().as_deref(), Some(json));
        assert_eq!(store.get("guestinfo.vice./common/id").unwrap().as_deref(), Some("3f0c"));
        assert_eq!(store.get("guestinfo.vice./nothing").unwrap(), None);
        fs::write(&path, "nonsense").unwrap();
        assert!(matches!(store.set("a", "b"), Err(StoreError::Malformed { .. })));
        assert_eq!(fs::read_to_string(&path).unwrap(), "nonsense", "what is not understood is not replaced");
        fs::remove_file(&path).unwrap();
    }
}
