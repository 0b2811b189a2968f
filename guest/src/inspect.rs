//! What lies at a path of the container, for whoever asks before copying. A link of the last component is told, not followed.

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::Path;

use wire::message::PathInfo;

/// What is there: lstat(2). A path is taken from `/`, whether it says so or not.
pub fn path(path: &str) -> io::Result<PathInfo> {
    let absolute = Path::new("/").join(path);
    let meta = fs::symlink_metadata(&absolute)?;
    let target = match meta.file_type() {
        kind if kind.is_symlink() => fs::read_link(&absolute)?.to_string_lossy().into_owned(),
        _ => String::new(),
    };
    let kind = meta.file_type();
    // a device's or pipe's size says nothing
    let size = if kind.is_char_device() || kind.is_block_device() || kind.is_fifo() { 0 } else { meta.size() };
    let nanos = i128::from(meta.mtime()) * 1_000_000_000 + i128::from(meta.mtime_nsec());
    let limit = if nanos < 0 { i64::MIN } else { i64::MAX };
    let mtime_ns = i64::try_from(nanos).unwrap_or(limit);
    let trimmed = path.trim_end_matches('/');
    let name = trimmed.rsplit('/').next().filter(|name| !name.is_empty()).unwrap_or("/").into();
    Ok(PathInfo { name, size, mode: meta.mode(), mtime_ns, target })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_is_told_and_followed_only_before_a_slash() {
        let dir = std::env::temp_dir().join(format!("tether-inspect-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        let link = dir.join("link");
        std::os::unix::fs::symlink(&dir, &link).unwrap();
        let told = path(link.to_str().unwrap()).unwrap();
        assert_eq!((told.name.as_str(), told.target.as_str()), ("link", dir.to_str().unwrap()));
        assert_eq!(told.mode & 0o170_000, 0o120_000);
        let followed = path(&format!("{}/", link.display())).unwrap();
        assert_eq!((followed.name.as_str(), followed.target.as_str()), ("link", ""));
        assert_eq!(followed.mode & 0o170_000, 0o040_000);
        fs::remove_dir_all(&dir).unwrap();
        assert_eq!(path(link.to_str().unwrap()).unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn the_root_has_a_name_and_a_relative_path_begins_there() {
        assert_eq!(path("/").unwrap().name, "/");
        assert_eq!(path("").unwrap().name, "/");
        assert_eq!(path("dev/null").unwrap(), path("/dev/null").unwrap());
        let null = path("/dev/null").unwrap();
        assert_eq!((null.name.as_str(), null.size, null.mode & 0o170_000), ("null", 0, 0o020_000));
    }

    #[test]
    fn times_are_whole() {
        let file = std::env::temp_dir().join(format!("tether-inspect-time-{}", std::process::id()));
        let before = std::time::UNIX_EPOCH - std::time::Duration::new(1, 500_000_000);
        fs::File::create(&file).unwrap().set_modified(before).unwrap();
        assert_eq!(path(file.to_str().unwrap()).unwrap().mtime_ns, -1_500_000_000);
        fs::remove_file(&file).unwrap();
    }
}
