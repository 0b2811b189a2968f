//! The initramfs: one static program as `/init`, and what it needs before it has mounted anything.
//!
//! It decides the archive's content. That the program is static is checked in `boot_assets`.

use std::io;
use std::path::{Path, PathBuf};

use super::extra::{self, Extra};
use super::{dir, file, meta};
use crate::boot_assets;
use crate::cpio;
use crate::output::Output;
use crate::tree::{Content, Kind, Node, ROOT, Time, Tree};

/// Writes the initramfs with the program at `init`, and what else is asked, to `output`.
pub fn write(init: &Path, extra: &[Extra], time: Time, output: &Path) -> Result<(), Error> {
    let mut tree = tree(boot_assets::init(init)?, time);
    extra::add(&mut tree, extra, time)?;
    let written = || {
        let mut out = Output::create(output)?;
        cpio::write(&tree, &mut io::BufWriter::new(out.file_mut()))?;
        out.publish()
    };
    written().map_err(|source| Error::Write { path: output.to_owned(), source })
}

/// The archive's files.
pub fn tree(init: Content, time: Time) -> Tree {
    let mut tree = Tree::new(meta(0o755, time));
    let dev = dir(&mut tree, ROOT, "dev", time);
    // The kernel opens it as the program's first three files, before anyone can mount /dev.
    let console = Node { meta: meta(0o600, time), kind: Kind::CharDevice { major: 5, minor: 1 } };
    tree.insert(dev, b"console", console);
    // A machine without a console leaves them closed, and a Rust program that starts so opens this in their place, or gives up.
    let null = Node { meta: meta(0o666, time), kind: Kind::CharDevice { major: 1, minor: 3 } };
    tree.insert(dev, b"null", null);
    for mount_point in ["proc", "sys", "newroot"] {
        dir(&mut tree, ROOT, mount_point, time);
    }
    file(&mut tree, ROOT, "init", 0o755, init, time);
    tree
}

/// Why there is no initramfs.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Init(#[from] boot_assets::Error),
    #[error(transparent)]
    Extra(#[from] extra::Error),
    #[error("{}", path.display())]
    Write { path: PathBuf, source: io::Error },
}
