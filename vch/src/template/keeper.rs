//! Keeps a template between the runs of vch: a process of its own holds the files, and hands them to each process of the same user that asks at its socket.
//!
//! It decides how a template is found, who gets it, and when it is given up. What a template is, and whether it is fit, is decided in [`super::kept`].

use std::future::Future;
use std::io::{IoSlice, IoSliceMut, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::process::Stdio;
use std::time::Duration;
use std::{env, fs, io};

use anyhow::{Context, Result, bail, ensure};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
    recvmsg, sendmsg,
};
use tokio::io::{AsyncReadExt, Interest};
use tokio::net::{UnixListener, UnixStream};
use tokio::process::Command;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{Instant, interval, sleep, timeout};

use super::kept::Template;
use super::pressure;
use crate::cli::KeepTemplateArgs;
use crate::state;

/// Where the sockets of this user's keepers are.
pub fn dir() -> Result<PathBuf> {
    let cache = state::cache_dir()?;
    state::make_dir(&cache)?;
    let dir = state::lasting_socket_dir(&cache)?.join("templates");
    state::make_dir(&dir)?;
    Ok(dir)
}

/// Waits until nobody else makes a template of this kind. Who has the file may make one until it is closed.
pub async fn lock(dir: &Path, kind: &str) -> Result<fs::File> {
    let path = file_of(dir, kind, "lock")?;
    let options = fs::File::options().read(true).write(true).create(true).truncate(false).mode(0o600).open(&path);
    let file = options.with_context(|| format!("cannot open {}", path.display()))?;
    let taken = async {
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(()),
                Err(fs::TryLockError::WouldBlock) => sleep(RETRY).await,
                Err(fs::TryLockError::Error(error)) => return Err(error),
            }
        }
    };
    match timeout(LOCK_TIME, taken).await {
        Ok(taken) => taken.with_context(|| format!("cannot lock {}", path.display())).map(|()| file),
        Err(_) => {
            let seconds = LOCK_TIME.as_secs();
            bail!("another vch has been making a template for {seconds} s: end the one that holds {}", path.display())
        }
    }
}

/// The template of this kind, if somebody keeps one.
pub async fn take(dir: &Path, kind: &str) -> Result<Option<Template>> {
    let path = file_of(dir, kind, "sock")?;
    let asked = async {
        let stream = match UnixStream::connect(&path).await {
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => {
                return Ok(None);
            }
            stream => stream?,
        };
        ensure!(is_ours(stream.peer_cred()?.uid()), "it is somebody else's");
        receive(&stream).await
    };
    let taken = timeout(TAKE_TIME, asked).await.unwrap_or_else(|_| bail!("it says nothing"));
    let fit = taken.and_then(|taken| {
        taken.map(|template| template.check(kind).map(|()| template)).transpose().map_err(Into::into)
    });
    fit.with_context(|| format!("the keeper at {} gives no template: remove that socket", path.display()))
}

/// Reads what a keeper says. One that has just given its template up says nothing.
async fn receive(stream: &UnixStream) -> Result<Option<Template>> {
    let (mut text, mut files) = (Vec::new(), Vec::new());
    loop {
        let mut bytes = [0; 4096];
        let count = stream.async_io(Interest::READABLE, || {
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
            let mut passed = RecvAncillaryBuffer::new(&mut space);
            let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
            let read = recvmsg(stream, &mut [IoSliceMut::new(&mut bytes)], &mut passed, flags)?;
            for message in passed.drain() {
                if let RecvAncillaryMessage::ScmRights(passed) = message {
                    files.extend(passed.map(fs::File::from));
                }
            }
            Ok(read.bytes)
        });
        match count.await {
            Ok(0) => break,
            Ok(count) => text.extend_from_slice(&bytes[..count]),
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset && text.is_empty() => break,
            Err(error) => return Err(error.into()),
        }
        ensure!(text.len() <= MOST, "what it says has no end");
    }
    if text.is_empty() {
        return Ok(None);
    }
    let record = serde_json::from_slice(&text).context("it says something else")?;
    match <[fs::File; 2]>::try_from(files) {
        Ok([memory, state]) => Ok(Some(Template { memory, state, record })),
        Err(files) => bail!("it passes {} files, and not 2", files.len()),
    }
}

/// Starts a process that keeps a template from now on, whoever ends. Who asks for it holds the lock.
pub async fn start(template: &Template, dir: &Path) -> Result<()> {
    // this very program, even if another one is installed by now
    let mut command = Command::new("/proc/self/exe");
    command.arg0("vch");
    start_by(command, template, dir).await.context("cannot keep the template for others")
}

async fn start_by(mut command: Command, template: &Template, dir: &Path) -> Result<()> {
    let record = serde_json::to_string(&template.record)?;
    command.arg("keep-template").arg(std::path::absolute(file_of(dir, &template.record.kind, "sock")?)?);
    // it lives long: what is secret in our environment is not kept with it
    command.env_clear().env("VCH_TEMPLATE_RECORD", record).envs(env::var_os(IDLE).map(|idle| (IDLE, idle)));
    command.current_dir("/").stderr(Stdio::piped());
    let mut files = template.files()?;
    let mut child = command.stdin(files.stdin()).stdout(files.stdout()).spawn()?;
    let mut said = String::new();
    let complaints = child.stderr.take().context("it has no standard error")?;
    // it lets go of its standard error as soon as it listens
    match timeout(START_TIME, complaints.take(MOST as u64).read_to_string(&mut said)).await {
        Ok(Ok(_)) if said == LISTENS => Ok(()),
        Ok(Ok(_)) => bail!("its keeper said {:?}", said.trim()),
        Ok(Err(error)) => Err(error.into()),
        Err(_) => {
            child.start_kill().ok();
            bail!("its keeper has not listened for {} s, and was ended", START_TIME.as_secs())
        }
    }
}

/// `vch keep-template`: keeps the template that it was started with.
pub fn run(args: &KeepTemplateArgs) -> Result<u8> {
    let record = serde_json::from_str(&args.record).context("VCH_TEMPLATE_RECORD tells of no template")?;
    let own = |file: BorrowedFd<'_>| file.try_clone_to_owned().map(fs::File::from);
    let template = Template { memory: own(io::stdout().as_fd())?, state: own(io::stdin().as_fd())?, record };
    template.check(&template.record.kind)?;
    // the terminal's signals are not for it; one that leads a group already is out of their way
    rustix::process::setsid().ok();
    // when memory runs out, the template can be made again
    fs::write("/proc/self/oom_score_adj", "1000").ok();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start")?;
    runtime.block_on(async {
        let place = Place::take(&args.socket).with_context(|| format!("cannot listen at {}", args.socket.display()))?;
        let mut asked = signal(SignalKind::terminate()).context("cannot catch signals")?;
        let nothing = fs::File::options().write(true).open("/dev/null").context("cannot open /dev/null")?;
        // nobody waits for it any more if this fails
        io::stderr().write_all(LISTENS.as_bytes())?;
        rustix::stdio::dup2_stderr(nothing).context("cannot let go of standard error")?;
        let idle = Some(Duration::from_secs(args.idle)).filter(|idle| !idle.is_zero());
        keep(&place, &template, idle, async { while asked.recv().await.is_none() {} }, pressure::short()).await;
        Ok(0)
    })
}

/// A socket, and the file by which it is found. The file goes with it, unless it is the next keeper's by now.
struct Place {
    listener: UnixListener,
    path: PathBuf,
    file: (u64, u64),
}

impl Place {
    fn take(path: &Path) -> io::Result<Place> {
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = UnixListener::bind(path)?;
        Ok(Place { listener, path: path.into(), file: file_at(path)? })
    }

    fn is_found(&self) -> bool {
        file_at(&self.path).is_ok_and(|file| file == self.file)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if self.is_found() {
            fs::remove_file(&self.path).ok();
        }
    }
}

fn file_at(path: &Path) -> io::Result<(u64, u64)> {
    fs::symlink_metadata(path).map(|meta| (meta.dev(), meta.ino()))
}

/// Hands a template out until there is a reason to give it up.
async fn keep(
    place: &Place,
    template: &Template,
    idle: Option<Duration>,
    asked: impl Future<Output = ()>,
    pressed: impl Future<Output = ()>,
) -> End {
    let (mut asked, mut pressed) = (pin!(asked), pin!(pressed));
    let mut seen = Seen { asked: false, pressed: false, found: true, untaken: Duration::ZERO };
    let mut taken = Instant::now();
    let mut looks = interval(idle.unwrap_or(LOOK).min(LOOK));
    loop {
        tokio::select! {
            client = place.listener.accept() => match client {
                Ok((client, _)) if hand(&client, template).is_ok() => taken = Instant::now(),
                // it sees that it gets nothing
                Ok(_) => {}
                // there are too many open files, or no memory
                Err(_) => sleep(RETRY).await,
            },
            () = &mut asked => seen.asked = true,
            () = &mut pressed => seen.pressed = true,
            _ = looks.tick() => seen.found = place.is_found(),
        }
        seen.untaken = taken.elapsed();
        if let Some(end) = end(&seen, idle) {
            return end;
        }
    }
}

/// What a keeper has seen.
#[derive(Clone, Debug)]
struct Seen {
    asked: bool,
    pressed: bool,
    found: bool,
    untaken: Duration,
}

/// Why a template is given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// By SIGTERM.
    Asked,
    /// Memory is short.
    Pressed,
    /// Nobody can find it: its socket is gone, or the next keeper's.
    Lost,
    /// Nobody took it for long.
    Idle,
}

fn end(seen: &Seen, idle: Option<Duration>) -> Option<End> {
    match seen {
        Seen { asked: true, .. } => Some(End::Asked),
        Seen { pressed: true, .. } => Some(End::Pressed),
        Seen { found: false, .. } => Some(End::Lost),
        Seen { untaken, .. } => idle.is_some_and(|idle| *untaken >= idle).then_some(End::Idle),
    }
}

/// Gives a template to the process at the other end, without waiting for it: a new socket has room for it.
fn hand(client: &UnixStream, template: &Template) -> Result<()> {
    ensure!(is_ours(client.peer_cred()?.uid()), "a template is for processes of its own user");
    let record = serde_json::to_vec(&template.record)?;
    let files = [template.memory.as_fd(), template.state.as_fd()];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
    let mut passed = SendAncillaryBuffer::new(&mut space);
    ensure!(passed.push(SendAncillaryMessage::ScmRights(&files)), "there is no space for two files");
    let sent = sendmsg(client, &[IoSlice::new(&record)], &mut passed, SendFlags::NOSIGNAL | SendFlags::DONTWAIT)?;
    ensure!(sent == record.len(), "the socket has no room");
    Ok(())
}

/// Whether a user is the one that this process belongs to. Not even root takes memory that a user's process has written.
fn is_ours(uid: u32) -> bool {
    uid == rustix::process::geteuid().as_raw()
}

/// The file of a kind's keeper.
fn file_of(dir: &Path, kind: &str, ending: &str) -> Result<PathBuf> {
    let name = kind.get(..16).filter(|_| kind.bytes().all(|byte| byte.is_ascii_hexdigit()));
    let name = name.with_context(|| format!("{kind:?} is no kind of template: it is no SHA-256"))?;
    Ok(dir.join(format!("{name}.{ending}")))
}

/// The variable that says how many seconds a template is kept when nobody takes it.
const IDLE: &str = "VCH_TEMPLATE_IDLE";
/// What a keeper says when it listens.
const LISTENS: &str = "listening\n";
/// Bytes of what a keeper says: it takes some hundreds.
const MOST: usize = 1 << 14;
/// A keeper answers at once, but where fifty machines start at once nobody does.
const TAKE_TIME: Duration = Duration::from_secs(if cfg!(test) { 2 } else { 20 });
/// A busy host is slow to start a program.
const START_TIME: Duration = Duration::from_secs(10);
/// A template is made in some seconds, or minutes without KVM.
const LOCK_TIME: Duration = Duration::from_secs(120);
const RETRY: Duration = Duration::from_millis(20);
/// Between two looks whether the keeper is still found.
const LOOK: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests;
