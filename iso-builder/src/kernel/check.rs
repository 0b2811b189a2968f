//! Whether a kernel that others built will do: what `REQUIRED` asks of ours, asked of its configuration.
//!
//! It decides where that configuration is looked for, and which lines only concern our own build. A driver that is a module counts as
//! missing: PID 1 loads none.

use std::fs;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use super::image::Image;
use super::{Error, at, config};
use crate::input;

/// Where a kernel's options were found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    File(PathBuf),
    /// In the kernel itself.
    Kernel,
}

/// A kernel and its configuration.
#[derive(Debug)]
pub struct Kernel {
    pub path: PathBuf,
    pub bytes: Vec<u8>,
    pub config: String,
    pub origin: Origin,
}

impl Kernel {
    /// The kernel at `path`, with the configuration that is named, lies beside it, or is in it.
    pub fn open(path: &Path, named: Option<&Path>) -> Result<Kernel, Error> {
        let mut bytes = Vec::new();
        input::open(path).and_then(|mut file| file.read_to_end(&mut bytes)).map_err(at(path))?;
        let image =
            Image::parse(&bytes).map_err(|reason| Error::Image { path: path.to_owned(), reason: reason.to_owned() })?;
        let read = |from: &Path| fs::read_to_string(from).map(|text| (text, Origin::File(from.to_owned())));
        let places = beside(path);
        let beside = || places.iter().map(|place| read(place)).find(|read| !is_missing(read));
        let found = match named {
            Some(named) => Some(read(named).map_err(at(named))?),
            None => beside().transpose().map_err(at(path))?,
        };
        let (config, origin) = match found {
            Some(found) => found,
            None => match image.config() {
                Ok(config) => (config, Origin::Kernel),
                Err(reason) => {
                    let beside = places.into_iter().next().expect("there is always one place");
                    return Err(Error::NoConfig { kernel: path.to_owned(), beside, reason });
                }
            },
        };
        Ok(Kernel { path: path.to_owned(), bytes, config, origin })
    }

    /// Fails with the names of what is missing.
    pub fn check(&self) -> Result<(), Error> {
        match missing(&self.config) {
            missing if missing.is_empty() => Ok(()),
            missing => Err(Error::Lacking { kernel: self.path.clone(), missing }),
        }
    }
}

fn is_missing<T>(read: &io::Result<T>) -> bool {
    matches!(read, Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory))
}

/// What a containerVM needs of a kernel and `config` does not have.
fn missing(config: &str) -> Vec<String> {
    let named = |line: &str| {
        let module = format!("{}=m", config::name(line));
        match config.lines().any(|said| said == module) {
            true => format!("{line} (it is a module, and PID 1 loads none)"),
            false => line.to_owned(),
        }
    };
    let ours_alone = |line: &&str| line.starts_with('#') || OURS_ALONE.contains(line);
    config::missing(config::REQUIRED, config).into_iter().filter(|line| !ours_alone(line)).map(named).collect()
}

/// What is required of our build, and nothing that runs depends on: how the file is packed. (Nor does it on what must be off.)
const OURS_ALONE: &[&str] = &["CONFIG_KERNEL_LZ4=y"];

/// Where a kernel's configuration lies by custom: `vmlinuz-6.12` has `config-6.12`, ours in the cache has `config`, any other FILE has FILE.config.
fn beside(kernel: &Path) -> Vec<PathBuf> {
    let name = kernel.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let mut places = vec![kernel.with_file_name(format!("{name}.config"))];
    if let Some(version) = name.strip_prefix("vmlinuz-") {
        places.insert(0, kernel.with_file_name(format!("config-{version}")));
    }
    if name == "bzImage" {
        places.insert(0, kernel.with_file_name("config"));
    }
    places
}

#[cfg(test)]
mod tests {
    use super::super::image::tests::packed_by_gzip;
    use super::*;

    #[test]
    fn options_are_found_where_custom_has_them() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        fs::write(path("vmlinuz-6.12"), packed_by_gzip("CONFIG_IN=kernel\n")).unwrap();
        let found = |named: Option<&Path>| {
            let kernel = Kernel::open(&path("vmlinuz-6.12"), named).unwrap();
            (kernel.config, kernel.origin)
        };
        assert_eq!(found(None), ("CONFIG_IN=kernel\n".to_owned(), Origin::Kernel));
        fs::write(path("config-6.12"), "CONFIG_BESIDE=y\n").unwrap();
        assert_eq!(found(None), ("CONFIG_BESIDE=y\n".to_owned(), Origin::File(path("config-6.12"))));
        fs::write(path("other"), "CONFIG_NAMED=y\n").unwrap();
        assert_eq!(found(Some(&path("other"))).0, "CONFIG_NAMED=y\n");
        let error = Kernel::open(&path("other"), None).unwrap_err().to_string();
        assert!(error.ends_with("other is not a kernel that we can read: it is no x86 kernel (bzImage)"), "{error}");
    }

    #[test]
    fn modules_are_as_good_as_missing() {
        let all = config::merged() + config::REQUIRED;
        assert_eq!(missing(&all), [""; 0]);
        let theirs = all
            .replace("CONFIG_VIRTIO_BLK=y", "CONFIG_VIRTIO_BLK=m")
            .replace("# CONFIG_MODULES is not set", "CONFIG_MODULES=y")
            .replace("CONFIG_KERNEL_LZ4=y", "CONFIG_KERNEL_XZ=y")
            .replace("CONFIG_OVERLAY_FS=y\n", "");
        let expected =
            ["CONFIG_VIRTIO_BLK=y (it is a module, and PID 1 loads none)", "CONFIG_OVERLAY_FS=y"].map(String::from);
        assert_eq!(missing(&theirs), expected);
    }
}
