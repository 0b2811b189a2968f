//! The shim: the double is the init of a machine, and the program that shall be its PID 1 lies behind it in the same file. A child of PID 1 becomes the tracer;
//! PID 1 goes on as the program.
//!
//! It decides what the machine is told to be (fw_cfg's file `opt/double`) and leaves nothing mounted and no folder behind: the program finds what the kernel left.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use nix::mount::{MntFlags, MsFlags, mount, umount2};

use super::options::{OptionError, Options};

/// Where the shim looks at the machine, and what a device is called by in its options: `/.double/dev/ttyS2`.
const LOOKOUT: &str = "/.double";
const SYSTEMS: [(&str, &str); 3] = [("proc", "proc"), ("sysfs", "sys"), ("devtmpfs", "dev")];
const CONFIGURATION: &str = "firmware/qemu_fw_cfg/by_name/opt/double/raw";
/// The program's file.
const PROGRAM: &str = "/double-program";
/// The kernel starts it by this name.
const OWN_FILE: &str = "/init";
/// Ends a file of both: a length of 8 bytes lies before it.
const MARK: &[u8; 16] = b"vmx-double's end";

/// One file of the double and the program that it shall go on as.
pub fn become_init(double: &[u8], program: &[u8]) -> Vec<u8> {
    [double, program, &(program.len() as u64).to_le_bytes(), MARK].concat()
}

/// The program behind the double.
fn program(file: &[u8]) -> Option<&[u8]> {
    let (rest, length) = file.strip_suffix(MARK)?.split_last_chunk()?;
    let length = usize::try_from(u64::from_le_bytes(*length)).ok()?;
    rest.get(rest.len().checked_sub(length)?..)
}

/// Why a machine does not come up.
#[derive(Debug, thiserror::Error)]
pub enum InitError {
    #[error("{what}")]
    Io { what: &'static str, source: io::Error },
    #[error("{OWN_FILE} holds no program behind the double")]
    Alone,
    #[error("fw_cfg's opt/double is no command line")]
    Options(#[from] OptionError),
}

/// The machine as the shim sees it.
#[derive(Debug)]
pub(super) struct Lookout;

impl Lookout {
    /// Mounts it.
    pub(super) fn open() -> io::Result<Lookout> {
        fs::create_dir(LOOKOUT)?;
        for (system, name) in SYSTEMS {
            let on = Path::new(LOOKOUT).join(name);
            fs::create_dir(&on)?;
            mount(Some(system), &on, Some(system), MsFlags::empty(), None::<&str>)?;
        }
        Ok(Lookout)
    }

    /// The options for this machine, and the program laid where it can be started.
    pub(super) fn options(&self) -> Result<Options, InitError> {
        let io = |what: &'static str| move |source| InitError::Io { what, source };
        let text = fs::read(Path::new(LOOKOUT).join("sys").join(CONFIGURATION))
            .map_err(io("the machine has no fw_cfg file opt/double"))?;
        let own = fs::read(OWN_FILE).map_err(io(OWN_FILE))?;
        fs::write(PROGRAM, program(&own).ok_or(InitError::Alone)?).map_err(io(PROGRAM))?;
        fs::set_permissions(PROGRAM, PermissionsExt::from_mode(0o755)).map_err(io(PROGRAM))?;
        Ok(Options::parse_bytes(&[&text[..], b"--pid1\0--\0", PROGRAM.as_bytes()].concat())?)
    }

    pub(super) fn proc() -> String {
        format!("{LOOKOUT}/proc")
    }

    /// Takes it away again; what is open stays open.
    pub(super) fn close(self) -> io::Result<()> {
        for (_, name) in SYSTEMS {
            umount2(&Path::new(LOOKOUT).join(name), MntFlags::MNT_DETACH)?;
        }
        fs::remove_dir_all(LOOKOUT)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_is_found_behind_the_double() {
        let both = become_init(b"double", b"program");
        assert!(both.starts_with(b"double"));
        assert_eq!(program(&both), Some(&b"program"[..]));
        assert_eq!(program(&become_init(b"", b"")), Some(&b""[..]));
        assert_eq!(program(b"double"), None);
        assert_eq!(program(&[&9u64.to_le_bytes()[..], MARK].concat()), None);
    }
}
