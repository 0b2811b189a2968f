//! Where built kernels are kept: `tether/kernel/<key>/` in the user's cache, whole or not at all.
//!
//! The key is a digest of everything that the bytes depend on, so an entry is never stale and never changed. One lock
//! for all builds: two at once would only take the CPUs from each other, and what an interrupted one left can be
//! removed.

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::build::Compiler;
use super::source::{self, Source};
use super::{Error, at};
use crate::{digest, progress};

/// The name under which a kernel of these inputs is kept.
pub fn key(source_digest: &str, config: &str, compiler: &str) -> String {
    let inputs = [RULES, source_digest, config, compiler].map(|input| digest::bytes(input.as_bytes())).concat();
    digest::bytes(inputs.as_bytes())[..32].to_owned()
}

/// The kernels built so far.
#[derive(Debug)]
pub struct Store {
    dir: PathBuf,
}

impl Store {
    /// The store in the user's cache directory; it is made if there is none.
    pub fn open(cache: &Path) -> Result<Store, Error> {
        let dir = cache.join("tether/kernel");
        fs::create_dir_all(&dir).map_err(at(&dir))?;
        Ok(Store { dir })
    }

    /// The kernel kept under `key`.
    pub fn image(&self, key: &str) -> Option<PathBuf> {
        Some(self.dir.join(key).join("bzImage")).filter(|path| path.is_file())
    }

    /// Waits until nobody else builds.
    pub fn lock(&self) -> Result<Lock<'_>, Error> {
        let path = self.dir.join(".lock");
        let file = File::create(&path).map_err(at(&path))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                progress::note("kernel: another build is running; waiting for it");
                file.lock().map_err(at(&path))?;
            }
            Err(TryLockError::Error(error)) => return Err(at(&path)(error)),
        }
        Ok(Lock { store: self, file })
    }
}

/// The right to build. The kernel frees it with its holder, however that ends.
#[derive(Debug)]
pub struct Lock<'a> {
    store: &'a Store,
    #[expect(dead_code, reason = "held, not read")]
    file: File,
}

/// Where one build happens.
#[derive(Debug)]
pub struct Place {
    key: String,
    /// The source is unpacked and compiled here.
    pub dir: PathBuf,
    /// Everything that the build printed.
    pub log: PathBuf,
}

impl Drop for Place {
    fn drop(&mut self) {
        // A gigabyte that nobody needs. What an interrupted build leaves, the next one removes.
        if let Err(error) = fs::remove_dir_all(&self.dir) {
            progress::note(&format!("kernel: {}: {error}", self.dir.display()));
        }
    }
}

impl Lock<'_> {
    /// An empty place to build the kernel that will be kept under `key`.
    pub fn place(&self, key: &str) -> Result<Place, Error> {
        let dir = self.store.dir.join(".build");
        match fs::remove_dir_all(&dir) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(at(&dir)(error)),
            _ => {}
        }
        fs::create_dir(&dir).map_err(at(&dir))?;
        Ok(Place { key: key.to_owned(), dir, log: self.store.dir.join(format!("{key}.log")) })
    }

    /// Keeps what was built at `place`; gives the image's path.
    pub fn publish(&self, place: &Place, source: &Source, compiler: &Compiler) -> Result<PathBuf, Error> {
        let image = place.dir.join("arch/x86/boot/bzImage");
        let config = place.dir.join(".config");
        let result = place.dir.join(".result");
        fs::create_dir(&result).map_err(at(&result))?;
        fs::rename(&image, result.join("bzImage")).map_err(at(&image))?;
        fs::rename(&config, result.join("config")).map_err(at(&config))?;
        let manifest = Manifest {
            version: source::version(),
            source_sha256: &source.digest,
            compiler: &compiler.version,
            config_sha256: sha256(&result.join("config"))?,
            image_sha256: sha256(&result.join("bzImage"))?,
        };
        let text = serde_json::to_string_pretty(&manifest).expect("strings are valid JSON") + "\n";
        let path = result.join("manifest.json");
        fs::write(&path, text).map_err(at(&path))?;
        for name in ["bzImage", "config", "manifest.json"] {
            let path = result.join(name);
            File::open(&path).and_then(|file| file.sync_all()).map_err(at(&path))?;
        }
        let entry = self.store.dir.join(&place.key);
        fs::rename(&result, &entry).map_err(at(&entry))?;
        Ok(entry.join("bzImage"))
    }
}

/// What a kernel was made of and what came out.
#[derive(Serialize)]
struct Manifest<'a> {
    version: &'a str,
    source_sha256: &'a str,
    compiler: &'a str,
    config_sha256: String,
    image_sha256: String,
}

fn sha256(path: &Path) -> Result<String, Error> {
    File::open(path).and_then(|file| digest::file(&file)).map_err(at(path))
}

/// Names how [`super::build`] builds. Change it when that changes what comes out of the same inputs.
const RULES: &str = "1";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_input_changes_the_key() {
        let base = key("source", "config", "compiler");
        assert_eq!(base.len(), 32);
        assert_eq!(base, key("source", "config", "compiler"));
        for other in [key("sourc", "econfig", "compiler"), key("source", "", "compiler"), key("source", "config", "c")]
        {
            assert_ne!(base, other);
        }
    }

    #[test]
    fn a_kernel_appears_whole_and_its_build_directory_goes() {
        let cache = tempfile::tempdir().unwrap();
        let store = Store::open(cache.path()).unwrap();
        let lock = store.lock().unwrap();
        let place = lock.place("k").unwrap();
        assert_eq!(store.image("k"), None);
        fs::create_dir_all(place.dir.join("arch/x86/boot")).unwrap();
        fs::write(place.dir.join("arch/x86/boot/bzImage"), b"kernel").unwrap();
        fs::write(place.dir.join(".config"), b"CONFIG_A=y\n").unwrap();
        let source = Source { path: "x".into(), digest: "d".into() };
        let compiler = Compiler { version: "gcc 12".into() };
        let image = lock.publish(&place, &source, &compiler).unwrap();
        let dir = place.dir.clone();
        drop(place);
        assert!(!dir.exists());
        assert_eq!(store.image("k"), Some(image.clone()));
        let manifest = fs::read_to_string(image.with_file_name("manifest.json")).unwrap();
        assert!(manifest.contains(&digest::bytes(b"kernel")), "{manifest}");
    }
}
