//! What a machine needs that goes on as a copy of another one's memory: to be sure of it, randomness of its own, and the time.
//!
//! The kernel notices a copy by itself where its hypervisor has a generation identifier (Microsoft, "Virtual Machine Generation ID"), but by an interrupt and a
//! walk through ACPI, which takes longer than it may: until then it gives every copy the same numbers. When all of this is done is the caller's decision.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::time::Duration;

use nix::libc;
use wire::guestinfo::ENTROPY;

use crate::clock;
use crate::sys::backdoor::Backdoor;
use crate::sys::kernel;

/// What is open before the copy is made: nothing has to be looked for afterwards.
#[derive(Debug)]
pub struct Fork {
    random: File,
    identifier: Identifier,
    backdoor: Option<Backdoor>,
}

/// Where a change of the machine's generation identifier is seen.
#[derive(Debug)]
enum Identifier {
    /// QEMU's own file of it, and what was in it.
    Device { file: File, before: [u8; 16] },
    /// The kernel's log, from its end on: no other hypervisor shows it to a program.
    Log(File),
}

/// Why a machine cannot be copied, or why a copy cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum ForkError {
    #[error(
        "this machine has no generation identifier (QEMU: -device vmgenid,guid=auto): its kernel would not know of a copy"
    )]
    NoIdentifier(#[source] io::Error),
    #[error("the generation identifier is what it was: no hypervisor has cloned this machine")]
    SameIdentifier,
    #[error("cannot read the machine's generation identifier")]
    Identifier(#[source] io::Error),
    #[error("cannot give the kernel's generator randomness of this clone's own")]
    Reseed(#[source] io::Error),
    #[error("cannot set this clone's clock")]
    Clock(#[source] io::Error),
    #[error("nobody tells this clone the time")]
    NoTime,
}

impl Fork {
    /// Opens everything.
    pub fn open() -> Result<Fork, ForkError> {
        let random = OpenOptions::new().write(true).open("/dev/random").map_err(ForkError::Reseed)?;
        let backdoor = Backdoor::detect();
        let identifier = match backdoor {
            Some(_) => Identifier::log(),
            None => Identifier::device(),
        };
        Ok(Fork { random, identifier: identifier.map_err(ForkError::NoIdentifier)?, backdoor })
    }

    /// Makes the kernel's randomness this machine's own. Whatever was drawn before, the template and all its clones have.
    pub fn reseed(&self, entropy: &[u8; ENTROPY]) -> Result<(), ForkError> {
        kernel::reseed(&self.random, entropy).map_err(ForkError::Reseed)
    }

    /// Sets the time of day: to what VMware's host says now, else to what it has `told` before, which is as old as the clone's start.
    pub fn set_clock(&self, told: Option<i64>) -> Result<(), ForkError> {
        let now = self.backdoor.and_then(Backdoor::time).and_then(|time| i64::try_from(time).ok());
        let time = now.or(told).ok_or(ForkError::NoTime)?;
        clock::set_wall_exactly(time).map_err(ForkError::Clock)
    }

    /// Makes sure that the hypervisor, too, says that this is another machine.
    pub fn confirm(&self) -> Result<(), ForkError> {
        match &self.identifier {
            Identifier::Device { file, before } => match read_identifier(file).map_err(ForkError::Identifier)? {
                now if now == *before => Err(ForkError::SameIdentifier),
                _ => Ok(()),
            },
            Identifier::Log(file) => await_reseeding(file),
        }
    }
}

impl Identifier {
    fn device() -> io::Result<Identifier> {
        let file = File::open("/sys/firmware/qemu_fw_cfg/by_name/etc/vmgenid_guid/raw")?;
        let before = read_identifier(&file)?;
        Ok(Identifier::Device { file, before })
    }

    fn log() -> io::Result<Identifier> {
        let mut file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open("/dev/kmsg")?;
        io::Seek::seek(&mut file, io::SeekFrom::End(0))?;
        Ok(Identifier::Log(file))
    }
}

/// QEMU, docs/specs/vmgenid.txt: 16 bytes, 40 from the beginning of a page.
fn read_identifier(file: &File) -> io::Result<[u8; 16]> {
    let mut identifier = [0; 16];
    file.read_exact_at(&mut identifier, 40)?;
    Ok(identifier)
}

/// Linux, drivers/char/random.c, `add_vmfork_randomness`: it says so once it has noticed.
fn await_reseeding(mut log: &File) -> Result<(), ForkError> {
    let deadline = clock::now() + NOTICED_WITHIN;
    let mut record = [0; 8192];
    loop {
        match log.read(&mut record) {
            Ok(count) if record[..count].windows(NOTICED.len()).any(|text| text == NOTICED) => return Ok(()),
            // older ones were overwritten
            Ok(_) => {}
            Err(error) if error.raw_os_error() == Some(libc::EPIPE) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                if clock::now() >= deadline {
                    return Err(ForkError::SameIdentifier);
                }
                std::thread::sleep(Duration::from_millis(1));
            }
            Err(error) => return Err(ForkError::Identifier(error)),
        }
    }
}

const NOTICED: &[u8] = b"due to virtual machine fork";
/// By an interrupt: a machine that is slow takes a tenth of a second.
const NOTICED_WITHIN: Duration = Duration::from_secs(5);
