//! Copies: sessions whose process is a child of ours, running our own code between the container's files and a standard stream: a tar archive, or a list of changes.
//!
//! Its exit code is 0 when that is complete; otherwise its standard error says why. What an archive holds and where it may go: [`guest::copy`].

use std::fs::File;
use std::io;
use std::os::fd::AsFd;

use guest::cgroup::Cgroup;
use guest::copy::{self, CopyError};
use guest::mounts;
use guest::sys::spawn::{SpawnError, Stdio, run_in_child};
use nix::unistd::Uid;
use wire::status::Failure;

use crate::boot::chain;
use crate::launch::{Launched, spawn_failure, streams_failure};
use crate::pipes::{Pipes, Place};

/// Which way.
pub(crate) enum Copy {
    Out {
        path: String,
    },
    In {
        dir: String,
        owners: bool,
        replace: bool,
    },
    /// What is not as the image has it.
    Changes,
}

/// Starts it.
pub(crate) fn start(copy: &Copy, cgroup: &Cgroup) -> Result<Launched, Failure> {
    let with_stdin = matches!(copy, Copy::In { .. });
    let pipes = Pipes::open(with_stdin, Place::Beside, Uid::from_raw(0)).map_err(|error| streams_failure(&error))?;
    let oom_kills = cgroup.oom_kills();
    let failed = |error: SpawnError| spawn_failure("copy", "/", &error);
    let mut stdio = pipes.stdio();
    if let (Copy::Changes, Stdio::Streams { stdin, .. }, Some(own)) = (copy, &mut stdio, mounts::own_root()) {
        // what is compared is out of the container's sight, and the child keeps no other descriptor
        *stdin = own;
    }
    let pid = run_in_child(&stdio, &cgroup.procs(), || run(copy)).map_err(failed)?;
    Ok(Launched { pid, streams: pipes.ours, oom_kills })
}

/// In the child: all of it, and its exit code.
fn run(copy: &Copy) -> i32 {
    let outcome = match copy {
        Copy::Changes => unbuffered(io::stdout()).map(|mut out| copy::changes(io::stdin().as_fd(), &mut out)),
        Copy::Out { path } => unbuffered(io::stdout()).map(|mut out| copy::copy_out(path, &mut out)),
        Copy::In { dir, owners, replace } => {
            unbuffered(io::stdin()).map(|mut input| copy::copy_in(dir, *owners, *replace, &mut input))
        }
    };
    let error = match outcome {
        Ok(Ok(())) => return 0,
        Ok(Err(error)) => said(&error),
        Err(error) => error.to_string(),
    };
    eprintln!("{error}");
    1
}

fn said(error: &CopyError) -> String {
    chain(error).collect::<Vec<String>>().join(": ")
}

/// A standard stream without the line buffer that it has for people.
fn unbuffered(stream: impl AsFd) -> io::Result<File> {
    stream.as_fd().try_clone_to_owned().map(File::from)
}
