//! What is kept of a template: the memory of a machine, the state of its devices, and what is known of both.
//!
//! It decides when they are fit to be forked. How they are made, who keeps them and how they are forked is decided elsewhere.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::time::SystemTime;

use anyhow::{Context, Result, bail};
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, fcntl_get_seals, memfd_create};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::state;
use crate::vm::qemu::Files;

/// A template. Nobody can write to its files any more, nor make them longer or shorter.
#[derive(Debug)]
pub struct Template {
    /// The whole memory of the machine; most of it is a hole.
    pub memory: File,
    /// The state of its devices, as QEMU saved it.
    pub state: File,
    pub record: Record,
}

/// What is known of a template.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Names the kernel, QEMU, the size of the machine and all else that a clone has to have in common with it: a SHA-256 in hexadecimal digits.
    pub kind: String,
    pub memory_bytes: u64,
    pub state_bytes: u64,
    pub state_sha256: String,
    /// When it was sealed, in seconds since 1970.
    pub made_unix: u64,
}

/// Why a template cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Unfit {
    #[error("the template is of another kernel, QEMU or size of machine")]
    OtherKind,
    #[error("the template could be written: it is not sealed")]
    Unsealed,
    #[error("the template is truncated: it has {has} of {of} bytes")]
    Truncated { has: u64, of: u64 },
    #[error("the template's state is not what was saved")]
    OtherState,
    #[error("the template cannot be read")]
    Unreadable(#[from] io::Error),
}

impl Template {
    /// Memory for a machine that is to become a template: so many bytes of zeros, which take no room yet.
    pub fn new_memory(bytes: u64) -> Result<File> {
        let memory = memory_file("vch-template-memory")?;
        memory.set_len(bytes).with_context(|| format!("cannot have {bytes} bytes of memory for a template"))?;
        Ok(memory)
    }

    /// Room for the state of its devices.
    pub fn new_state() -> Result<File> {
        memory_file("vch-template-state")
    }

    /// Makes a template of what QEMU has written, when it is gone.
    pub fn seal(memory: File, state: File, kind: &str) -> Result<Template> {
        for file in [&memory, &state] {
            match fcntl_add_seals(file, SEALS) {
                Err(Errno::BUSY) => {
                    bail!("the template cannot be sealed: somebody has its memory mapped, so end its QEMU first")
                }
                sealed => sealed.context("the template cannot be sealed")?,
            }
        }
        let (memory_bytes, state_bytes) = (length(&memory)?, length(&state)?);
        let state_sha256 = digest(&state).context("cannot read the template's state")?;
        let record = Record {
            kind: kind.into(),
            memory_bytes,
            state_bytes,
            state_sha256,
            made_unix: SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default().as_secs(),
        };
        Ok(Template { memory, state, record })
    }

    /// Whether it can be forked for a machine of this kind.
    pub fn check(&self, kind: &str) -> Result<(), Unfit> {
        if self.record.kind != kind {
            return Err(Unfit::OtherKind);
        }
        for (file, of) in [(&self.memory, self.record.memory_bytes), (&self.state, self.record.state_bytes)] {
            // what is no file in memory has no seals
            if !fcntl_get_seals(file).is_ok_and(|seals| seals.contains(SEALS)) {
                return Err(Unfit::Unsealed);
            }
            let has = length(file)?;
            if has != of {
                return Err(Unfit::Truncated { has, of });
            }
        }
        match digest(&self.state)? == self.record.state_sha256 {
            true => Ok(()),
            false => Err(Unfit::OtherState),
        }
    }

    /// Both, for one clone: from offsets that nobody shares.
    pub fn files(&self) -> Result<Files> {
        Ok(Files { state: Some(reopen(&self.state)?), memory: Some(reopen(&self.memory)?) })
    }
}

fn memory_file(name: &str) -> Result<File> {
    let made = memfd_create(name, MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING);
    made.map(File::from).context("cannot make a file in memory for a template")
}

fn length(file: &File) -> io::Result<u64> {
    Ok(file.metadata()?.len())
}

fn reopen(file: &File) -> Result<File> {
    File::open(format!("/proc/self/fd/{}", file.as_raw_fd())).context("cannot open the template again")
}

/// The SHA-256 of a whole file, wherever it is read just now.
fn digest(file: &File) -> io::Result<String> {
    let (mut hasher, mut buffer, mut offset) = (Sha256::new(), vec![0; 1 << 16], 0);
    loop {
        match file.read_at(&mut buffer, offset)? {
            0 => return Ok(state::hex(&hasher.finalize())),
            count => {
                hasher.update(&buffer[..count]);
                offset += count as u64;
            }
        }
    }
}

/// All that there are: the last of them says that it stays so.
const SEALS: SealFlags = SealFlags::WRITE.union(SealFlags::SHRINK).union(SealFlags::GROW).union(SealFlags::SEAL);

#[cfg(test)]
pub(super) mod tests {
    use std::io::{Read, Seek, Write};

    use super::*;

    /// A small template of a kind.
    pub(in crate::template) fn template(kind: &str) -> Template {
        let (memory, mut state) = (Template::new_memory(1 << 20).unwrap(), Template::new_state().unwrap());
        memory.write_all_at(b"a page", 4096).unwrap();
        state.write_all(b"the state of its devices").unwrap();
        Template::seal(memory, state, kind).unwrap()
    }

    #[test]
    fn nobody_writes_to_a_template() {
        let template = template("k");
        template.check("k").unwrap();
        for file in [&template.memory, &template.state] {
            let refused =
                |result: io::Result<()>| assert_eq!(result.unwrap_err().kind(), io::ErrorKind::PermissionDenied);
            refused(file.write_all_at(b"x", 0));
            refused(file.set_len(1));
            refused(file.set_len(1 << 30));
            assert_eq!(fcntl_add_seals(file, SealFlags::FUTURE_WRITE), Err(Errno::PERM));
            // not even who opens it anew
            let path = format!("/proc/self/fd/{}", file.as_raw_fd());
            refused(File::options().write(true).open(path).and_then(|file| file.write_all_at(b"x", 0)));
        }
    }

    #[test]
    fn what_is_unfit_is_refused_with_a_reason() {
        let check = |bend: &dyn Fn(&mut Template), reason: &str| {
            let mut template = template("k");
            bend(&mut template);
            assert_eq!(template.check("k").unwrap_err().to_string(), reason);
        };
        check(&|it| it.record.kind = "o".into(), "the template is of another kernel, QEMU or size of machine");
        check(&|it| it.record.memory_bytes = 2 << 20, "the template is truncated: it has 1048576 of 2097152 bytes");
        check(&|it| it.record.state_bytes = 25, "the template is truncated: it has 24 of 25 bytes");
        check(&|it| it.record.state_sha256 = digest(&it.memory).unwrap(), "the template's state is not what was saved");
        let unsealed = "the template could be written: it is not sealed";
        check(&|it| it.memory = Template::new_memory(1 << 20).unwrap(), unsealed);
        check(&|it| it.memory = tempfile::tempfile().unwrap(), unsealed);
        let nearly = |it: &mut Template| {
            it.state = Template::new_state().unwrap();
            fcntl_add_seals(&it.state, SealFlags::WRITE | SealFlags::SHRINK | SealFlags::GROW).unwrap();
        };
        check(&nearly, unsealed);
    }

    #[test]
    fn each_reader_has_an_offset_of_its_own() {
        let mut template = template("k");
        template.state.seek(io::SeekFrom::Start(4)).unwrap();
        for _ in 0..2 {
            let mut text = String::new();
            template.files().unwrap().state.unwrap().read_to_string(&mut text).unwrap();
            assert_eq!(text, "the state of its devices");
        }
        let mut page = [0; 6];
        let memory = template.files().unwrap().memory.unwrap();
        memory.read_exact_at(&mut page, 4096).unwrap();
        assert_eq!((&page, template.state.stream_position().unwrap()), (b"a page", 4));
        // who only reads maps it as its own: the seals are no obstacle to that, and show from there, too
        assert_eq!(fcntl_get_seals(memory).unwrap(), SEALS);
    }

    #[test]
    fn a_record_is_plain_json() {
        let record = template("k").record;
        let text = serde_json::to_value(&record).unwrap();
        assert_eq!((&text["kind"], &text["memory_bytes"]), (&"k".into(), &(1 << 20).into()));
        assert_eq!(serde_json::from_value::<Record>(text).unwrap(), record);
    }
}
