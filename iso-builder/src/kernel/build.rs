//! How the kernel is compiled: unpack, configure, check, `make bzImage`.
//!
//! The environment is emptied and every name, time and number that a build would take from the machine is fixed, so
//! that the same source, configuration and compiler give the same bytes. Anything here that changes what comes out must
//! change `RULES` in `store`.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::selection::Selection;
use super::source::{self, Source};
use super::store::Place;
use super::{Error, at};
use crate::progress::Progress;

/// The tools whose version changes the kernel's bytes.
#[derive(Clone, Debug)]
pub struct Compiler {
    /// What `gcc --version` and `ld --version` say first.
    pub version: String,
}

impl Compiler {
    pub fn find() -> Result<Compiler, Error> {
        let first_line = |tool: &str| {
            let output = Command::new(tool).arg("--version").env("LC_ALL", "C").output().ok()?;
            output.stdout.lines().next()?.ok()
        };
        match (first_line("gcc"), first_line("ld")) {
            (Some(gcc), Some(ld)) => Ok(Compiler { version: format!("{gcc}; {ld}") }),
            _ => Err(Error::Tools { packages: missing_packages().join(" ") }),
        }
    }
}

/// The Debian packages of the tools that are not there.
pub fn missing_packages() -> Vec<&'static str> {
    let there = |tool: &str| {
        let paths = std::env::var_os("PATH").unwrap_or_default();
        std::env::split_paths(&paths).any(|dir| dir.join(tool).is_file())
    };
    let mut missing: Vec<&str> = TOOLS.iter().filter(|(tool, _)| !there(tool)).map(|(_, package)| *package).collect();
    // objtool, which the kernel builds for itself, reads ELF through this header.
    let header = Command::new("gcc").args(["-fsyntax-only", "-include", "gelf.h", "-xc", "/dev/null"]).output();
    if header.is_ok_and(|output| !output.status.success()) {
        missing.push("libelf-dev");
    }
    missing.dedup();
    missing
}

/// Builds the kernel at `place`.
pub fn run(
    source: &Source,
    compiler: &Compiler,
    selection: &Selection,
    jobs: usize,
    place: &Place,
) -> Result<(), Error> {
    let mut log = Log { file: File::create(&place.log).map_err(at(&place.log))?, path: &place.log };
    log.note(&format!("{}\n{}\n{}\n", source.path.display(), source.digest, compiler.version))?;

    let mut unpack = Command::new("tar");
    unpack.arg("-xf").arg(&source.path).args(["--strip-components=1", "-C"]).arg(&place.dir);
    // The version of the tarball is known only now; a wrong one would fail later and without saying why.
    log.run("unpack", unpack, |_| {})?;
    check_version(source, &place.dir)?;

    let wanted = place.dir.join("tether.config");
    fs::write(&wanted, selection.merged()).map_err(at(&wanted))?;
    let mut configure = make(&place.dir);
    configure.env("KCONFIG_ALLCONFIG", &wanted).arg("allnoconfig");
    log.run("make allnoconfig", configure, |_| {})?;
    let path = place.dir.join(".config");
    let got = fs::read_to_string(&path).map_err(at(&path))?;
    selection.check(&got)?;

    let mut compile = make(&place.dir);
    compile.arg(format!("-j{jobs}")).arg("bzImage");
    let mut progress = Progress::start("kernel", STEPS);
    // `  CC      init/main.o` is a step; everything else is not.
    log.run("make bzImage", compile, |line| progress.advance(u64::from(line.starts_with(b"  "))))
}

/// `make` in `dir`, knowing nothing of this machine or this moment.
fn make(dir: &Path) -> Command {
    let mut make = Command::new("make");
    make.arg("-C").arg(dir).arg("--no-print-directory").env_clear();
    make.envs(std::env::vars_os().filter(|(name, _)| name == "PATH" || name == "TMPDIR"));
    // The time is not SOURCE_DATE_EPOCH: one kernel of the cache serves builds of every date.
    make.envs([
        ("LC_ALL", "C"),
        ("TZ", "UTC"),
        ("SOURCE_DATE_EPOCH", "0"),
        ("KBUILD_BUILD_TIMESTAMP", "Thu Jan  1 00:00:00 UTC 1970"),
        ("KBUILD_BUILD_USER", "tether"),
        ("KBUILD_BUILD_HOST", "iso-builder"),
        ("KBUILD_BUILD_VERSION", "1"),
    ]);
    make
}

/// A tarball of another release has other options; say so before they go missing.
fn check_version(source: &Source, dir: &Path) -> Result<(), Error> {
    let path = dir.join("Makefile");
    let makefile = fs::read_to_string(&path).map_err(at(&path))?;
    let value = |name: &str| {
        let line = makefile.lines().find_map(|line| line.strip_prefix(name)?.trim_start().strip_prefix('='));
        line.unwrap_or("?").trim().to_owned()
    };
    let found = format!("{}.{}", value("VERSION"), value("PATCHLEVEL"));
    match found == source::version() {
        true => Ok(()),
        false => Err(Error::Version { path: source.path.clone(), found, wanted: source::version() }),
    }
}

/// What the build's steps print, all of it, in one file.
struct Log<'a> {
    file: File,
    path: &'a PathBuf,
}

impl Log<'_> {
    fn note(&mut self, text: &str) -> Result<(), Error> {
        self.file.write_all(text.as_bytes()).map_err(at(self.path))
    }

    /// Runs one step to its end. `each` sees every line that it prints.
    fn run(&mut self, step: &str, mut command: Command, mut each: impl FnMut(&[u8])) -> Result<(), Error> {
        self.note(&format!("--- {step}\n"))?;
        let failed = |tail: String| Error::Step { step: step.to_owned(), tail, log: self.path.clone() };
        let started = || -> io::Result<_> {
            let (reader, writer) = io::pipe()?;
            let child = command.stdin(Stdio::null()).stdout(writer.try_clone()?).stderr(writer).spawn()?;
            // The command holds the pipe's other end: without it gone, the end of file never comes.
            drop(command);
            Ok((reader, child))
        };
        let (reader, mut child) = started().map_err(|error| failed(error.to_string()))?;
        let mut tail = Tail::default();
        for line in BufReader::new(reader).split(b'\n') {
            let mut line = line.map_err(at(self.path))?;
            each(&line);
            tail.see(&line);
            line.push(b'\n');
            self.file.write_all(&line).map_err(at(self.path))?;
        }
        match child.wait().map_err(at(self.path))? {
            status if status.success() => Ok(()),
            status => Err(failed(tail.text().unwrap_or_else(|| status.to_string()))),
        }
    }
}

/// The lines that tell why a step failed: what compilers call an error, else the last ones.
#[derive(Default)]
struct Tail {
    errors: Vec<String>,
    last: VecDeque<String>,
}

impl Tail {
    fn see(&mut self, line: &[u8]) {
        let line = String::from_utf8_lossy(line).trim().to_owned();
        // `make: *** [...] Error 1` repeats on every level that something went wrong, not what.
        if line.is_empty() || line.starts_with("make") {
            return;
        }
        // The first errors are the cause of those that follow.
        if line.contains("error:") && self.errors.len() < LINES {
            self.errors.push(line.clone());
        }
        self.last.push_back(line);
        if self.last.len() > LINES {
            self.last.pop_front();
        }
    }

    fn text(self) -> Option<String> {
        let lines = if self.errors.is_empty() { self.last.into() } else { self.errors };
        Some(lines.join("; ")).filter(|text| !text.is_empty())
    }
}

/// So many lines of a failure fit in a message; the log has the rest.
const LINES: usize = 3;

/// Tool and the Debian package that has it; tools of one package stand together.
const TOOLS: &[(&str, &str)] = &[
    ("gcc", "gcc"),
    ("ld", "binutils"),
    ("make", "make"),
    ("flex", "flex"),
    ("bison", "bison"),
    ("bc", "bc"),
    ("lz4", "lz4"),
    ("tar", "tar"),
    ("xz", "xz-utils"),
];

/// Lines that a whole build prints; only the progress bar rests on it.
const STEPS: u64 = 2220;

#[cfg(test)]
mod tests {
    use super::*;

    fn fail(script: &str) -> (Error, String) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let mut log = Log { file: File::create(&path).unwrap(), path: &path };
        let mut command = Command::new("sh");
        command.arg("-c").arg(script);
        let error = log.run("a step", command, |_| {}).unwrap_err();
        (error, fs::read_to_string(&path).unwrap())
    }

    #[test]
    fn a_failed_step_tells_its_error_and_keeps_all_output() {
        let (error, log) = fail("echo '  CC x.o'; echo 'x.c:1: error: no' >&2; echo 'make: *** Error 2'; exit 2");
        assert!(error.to_string().starts_with("the kernel build failed at `a step`: x.c:1: error: no (whole log: "));
        assert_eq!(log, "--- a step\n  CC x.o\nx.c:1: error: no\nmake: *** Error 2\n");
    }

    #[test]
    fn a_step_that_says_nothing_fails_with_its_status() {
        assert!(fail("exit 3").0.to_string().contains("exit status: 3"));
    }
}
