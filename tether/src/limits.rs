//! What the container may use of its machine.

use nix::sys::resource::{Resource, setrlimit};
use wire::spec::Spec;
use wire::status::Failure;

use crate::boot::machine;

/// Open files of the container, as docker sets them.
const OPEN_FILES: u64 = 1_048_576;

/// Sets the limits that processes inherit, and those of the machine.
pub(crate) fn set(_spec: &Spec) -> Result<(), Failure> {
    setrlimit(Resource::RLIMIT_NOFILE, OPEN_FILES, OPEN_FILES)
        .map_err(|errno| machine("cannot set the limit of open files", &errno))
}
