//! Runs the foreign judges on an image.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Command, Output};
use std::sync::Arc;

use iso_builder::ext4::{self, Options, Stats};
use iso_builder::tree::{ReadAt, Tree};
use sha2::{Digest, Sha256};
use tempfile::{NamedTempFile, TempDir};

/// An image in a temporary file.
pub(crate) struct Image {
    pub(crate) file: File,
    pub(crate) stats: Stats,
    path: NamedTempFile,
}

pub(crate) fn build(tree: &Tree, options: &Options) -> Image {
    let path = NamedTempFile::new().unwrap();
    let stats = ext4::write(tree, options, path.as_file(), &mut |_, _| {}).unwrap();
    Image { file: path.reopen().unwrap(), stats, path }
}

impl Image {
    pub(crate) fn e2fsck(&self) -> Output {
        run(Command::new("/usr/sbin/e2fsck").arg("-fn").arg(self.path.path()))
    }

    pub(crate) fn assert_clean(&self) {
        self.assert_clean_for("image");
    }

    pub(crate) fn assert_clean_for(&self, what: &str) {
        let output = self.e2fsck();
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{what} is not clean:\n{said}{}", String::from_utf8_lossy(&output.stderr));
        assert!(!said.contains("? no"), "{what} would be changed:\n{said}");
    }

    pub(crate) fn debugfs(&self, request: &str) -> String {
        debugfs(request, self.path.path())
    }

    pub(crate) fn contents(&self, path: &str) -> Vec<u8> {
        let to = NamedTempFile::new().unwrap();
        self.debugfs(&format!("dump {path} {}", to.path().display()));
        std::fs::read(to.path()).unwrap()
    }

    /// All regular files, directories and symlinks, as `debugfs` copies them out.
    pub(crate) fn unpack(&self) -> TempDir {
        let to = tempfile::tempdir().unwrap();
        self.debugfs(&format!("rdump / {}", to.path().display()));
        to
    }

    pub(crate) fn dump(&self) -> String {
        ext4::dump(&self.file).unwrap()
    }

    pub(crate) fn read(&self) -> Tree {
        let image: Arc<dyn ReadAt> = Arc::new(self.file.try_clone().unwrap());
        ext4::read(&image).unwrap()
    }

    pub(crate) fn digest(&self) -> String {
        let mut digest = Sha256::new();
        let mut file = self.path.reopen().unwrap();
        let mut buffer = vec![0; 1 << 20];
        loop {
            match file.read(&mut buffer).unwrap() {
                0 => break,
                len => digest.update(&buffer[..len]),
            }
        }
        digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// What the superblock's copy in a group says the group is; `e2fsck` does not look.
    pub(crate) fn copy_number(&self, group: u64) -> u16 {
        let mut field = [0; 2];
        FileExt::read_exact_at(&self.file, &mut field, group * 32_768 * 4096 + 0x5A).unwrap();
        u16::from_le_bytes(field)
    }

    pub(crate) fn flip_bit(&self, at: u64) {
        let mut byte = [0];
        let file = self.path.as_file();
        FileExt::read_exact_at(file, &mut byte, at).unwrap();
        file.write_all_at(&[byte[0] ^ 1], at).unwrap();
    }
}

pub(crate) fn debugfs(request: &str, image: &Path) -> String {
    let output = run(Command::new("/usr/sbin/debugfs").args(["-R", request]).arg(image));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

pub(crate) fn run(command: &mut Command) -> Output {
    command
        .env("LC_ALL", "C")
        .env("TZ", "UTC")
        .output()
        .unwrap_or_else(|error| panic!("{} does not run: {error}; install e2fsprogs", command.get_program().display()))
}
