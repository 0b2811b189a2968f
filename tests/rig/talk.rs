//! A `vch run` that a test speaks with, line by line, while the container runs.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdin, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread::{self, JoinHandle};

use nix::unistd::Pid;
use tempfile::TempDir;

use crate::vch::{DEADLINE, Output, Run, wait};

/// A container under way whose standard input is open.
pub struct Talk {
    child: Child,
    stdin: ChildStdin,
    lines: Receiver<String>,
    stderr: JoinHandle<String>,
    state: TempDir,
}

impl Run {
    /// Starts it, to speak with it.
    pub fn talk(mut self) -> Talk {
        let piped = self.command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = piped.spawn().unwrap_or_else(|error| panic!("{:?}: {error}", self.command));
        let (stdin, stdout) = (child.stdin.take().expect("piped"), child.stdout.take().expect("piped"));
        let (sender, lines) = mpsc::channel();
        thread::spawn(move || BufReader::new(stdout).lines().map_while(Result::ok).try_for_each(|it| sender.send(it)));
        let mut pipe = child.stderr.take().expect("piped");
        let stderr = thread::spawn(move || {
            let mut all = Vec::new();
            pipe.read_to_end(&mut all).ok();
            String::from_utf8_lossy(&all).into_owned()
        });
        Talk { child, stdin, lines, stderr, state: self.state }
    }
}

impl Talk {
    /// The next line of its output.
    pub fn line(&mut self) -> String {
        match self.lines.recv_timeout(DEADLINE) {
            Ok(line) => line,
            Err(why) => {
                self.child.kill().ok();
                let state = self.child.wait();
                panic!("no line of output: {why}; {state:?}")
            }
        }
    }

    /// All lines up to one, which is left out.
    pub fn lines_until(&mut self, last: &str) -> Vec<String> {
        let mut lines = Vec::new();
        loop {
            match self.line() {
                line if line == last => return lines,
                line => lines.push(line),
            }
        }
    }

    pub fn say(&mut self, line: &str) {
        writeln!(self.stdin, "{line}").expect("it reads");
    }

    pub fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id().cast_signed())
    }

    pub fn state(&self) -> &Path {
        self.state.path()
    }

    /// Closes its standard input, and waits for the end. What it wrote since is its output.
    pub fn finish(mut self) -> Output {
        drop(self.stdin);
        let code = wait(&mut self.child);
        let rest: Vec<String> = self.lines.iter().collect();
        let stderr = self.stderr.join().expect("the reader");
        Output { code, stdout: rest.join("\n").into_bytes(), stderr, first_byte: None }
    }
}
