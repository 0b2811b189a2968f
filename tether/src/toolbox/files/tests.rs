//! A host's transfers, in packets, with a scratch root.

use std::fs;
use std::path::PathBuf;

use guest::toolbox::hgfs::Changes;

use super::*;

struct Host {
    root: PathBuf,
    files: Files,
    now: Duration,
}

impl Drop for Host {
    fn drop(&mut self) {
        let _gone = fs::remove_dir_all(&self.root);
    }
}

fn host(name: &str) -> Host {
    let root = std::env::temp_dir().join(format!("tether-files-{name}-{}", std::process::id()));
    fs::create_dir_all(&root).unwrap();
    fs::write(root.join("there"), "0123456789").unwrap();
    Host { root, files: Files::default(), now: Duration::from_secs(100) }
}

impl Host {
    fn call(&mut self, session: u64, call: Call) -> Result<Answer, Status> {
        self.files.serve(&self.root, session, &call, self.now).map_err(Status::from)
    }

    fn session(&mut self) -> Result<u64, Status> {
        match self.call(0, Call::CreateSession)? {
            Answer::Session(session) => Ok(session),
            other => panic!("{other:?}"),
        }
    }

    fn open(&mut self, session: u64, path: &str, how: How) -> Result<u32, Status> {
        match self.call(session, Call::Open { path: path.into(), how })? {
            Answer::Opened(handle) => Ok(handle),
            other => panic!("{other:?}"),
        }
    }

    fn mode(&self, name: &str) -> u32 {
        std::os::unix::fs::MetadataExt::mode(&fs::metadata(self.root.join(name)).unwrap()) & 0o7777
    }

    fn text(&self, name: &str) -> String {
        fs::read_to_string(self.root.join(name)).unwrap_or_default()
    }
}

const ANEW: How = How::Write { mode: 0o644, fresh: false };

fn write(handle: u32, data: &[u8]) -> Call {
    Call::Write { handle, offset: None, data: data.into() }
}

fn read(handle: u32, offset: u64) -> Call {
    Call::Read { handle, offset, count: 4 }
}

#[test]
fn a_file_is_read_in_pieces_up_to_its_end() {
    let mut host = host("read");
    let session = host.session().unwrap();
    let handle = host.open(session, "/there", How::Read).unwrap();
    let all = [0, 4, 8, 10, 4000].map(|offset| host.call(session, read(handle, offset)).unwrap());
    assert_eq!(all, [&b"0123"[..], b"4567", b"89", b"", b""].map(|data| Answer::Read(data.into())));
    assert_eq!(host.call(session, write(handle, b"x")), Err(Status::AccessDenied));
    for target in [Target::Handle(handle), Target::Path("/there".into())] {
        let Ok(Answer::Attributes(of)) = host.call(session, Call::Attributes(target)) else { panic!() };
        assert_eq!(of.size, 10);
    }
    assert_eq!(host.call(session, Call::Close { handle }), Ok(Answer::Done));
    assert_eq!(host.call(session, Call::Close { handle }), Err(Status::InvalidHandle));
    assert_eq!(host.call(session, read(handle, 0)), Err(Status::InvalidHandle));
    assert_eq!(host.open(session, "/none", How::Read), Err(Status::NoSuchFile));
    let none = Call::Attributes(Target::Path("/none".into()));
    assert_eq!(host.call(session, none), Err(Status::NoSuchFile));
    assert_eq!(host.call(session, Call::Attributes(Target::Handle(99))), Err(Status::InvalidHandle));
}

#[test]
fn an_upload_is_there_once_it_is_closed() {
    let mut host = host("write");
    let session = host.session().unwrap();
    let handle = host.open(session, "/there", ANEW).unwrap();
    let mode = Changes { mode: 0o400, mask: 0o700, ..Changes::default() };
    // by the name that the file does not have yet
    host.call(session, Call::SetAttributes(Target::Path("/there".into()), mode)).unwrap();
    assert_eq!(host.call(session, write(handle, b"new ")), Ok(Answer::Written(4)));
    assert_eq!(host.call(session, write(handle, b"text")), Ok(Answer::Written(4)));
    assert_eq!(host.call(session, read(handle, 0)), Err(Status::InvalidHandle));
    assert_eq!(host.text("there"), "0123456789");
    assert_eq!(host.call(session, Call::Close { handle }), Ok(Answer::Done));
    assert_eq!(host.text("there"), "new text");
    assert_eq!(host.mode("there"), 0o444);
    // of a file that nobody writes, too
    let mode = Changes { mode: 0o640, mask: 0o777, ..Changes::default() };
    host.call(session, Call::SetAttributes(Target::Path("/there".into()), mode)).unwrap();
    assert_eq!(host.mode("there"), 0o640);
}

#[test]
fn what_is_not_closed_leaves_nothing() {
    let mut host = host("half");
    let session = host.session().unwrap();
    let handle = host.open(session, "/half", ANEW).unwrap();
    host.call(session, write(handle, b"half")).unwrap();
    assert_eq!(host.call(session, Call::DestroySession), Ok(Answer::Done));
    assert_eq!(fs::read_dir(&host.root).unwrap().count(), 1);
    assert_eq!(host.call(session, write(handle, b"more")), Err(Status::StaleSession));
    assert_eq!(host.call(session, Call::DestroySession), Err(Status::StaleSession));

    // a write that fails ends it: its file would lack a part
    let session = host.session().unwrap();
    let handle = host.open(session, "/half", ANEW).unwrap();
    let far = Call::Write { handle, offset: Some(u64::MAX - 9), data: b"x".to_vec() };
    assert_eq!(host.call(session, far), Err(Status::InvalidParameter));
    assert_eq!(host.call(session, Call::Close { handle }), Err(Status::InvalidHandle));
    assert_eq!(fs::read_dir(&host.root).unwrap().count(), 1);
}

#[test]
fn sessions_and_open_files_are_few_and_of_their_own() {
    let mut host = host("few");
    let sessions: Vec<u64> = (0..MOST_SESSIONS).map(|_| host.session().unwrap()).collect();
    assert_eq!(host.session(), Err(Status::TooManySessions));
    let handles: Vec<u32> = (0..MOST_OPEN).map(|_| host.open(sessions[0], "/there", How::Read).unwrap()).collect();
    assert_eq!(host.open(sessions[0], "/there", How::Read), Err(Status::Generic));
    assert_eq!(host.call(sessions[1], read(handles[0], 0)), Err(Status::InvalidHandle));
    assert_eq!(host.call(7, read(handles[0], 0)), Err(Status::StaleSession));
    // one whose host is silent makes room
    host.now += FORGOTTEN / 2;
    host.call(sessions[1], Call::Attributes(Target::Path("/there".into()))).unwrap();
    host.now += FORGOTTEN / 2;
    let new = host.session().unwrap();
    assert!(!sessions.contains(&new));
    assert_eq!(host.call(sessions[0], read(handles[0], 0)), Err(Status::StaleSession));
    assert!(host.call(sessions[1], Call::Attributes(Target::Path("/there".into()))).is_ok());
}

#[test]
fn a_transfer_is_refused_before_it_begins_if_it_cannot_be() {
    let host = host("ask");
    fs::create_dir(host.root.join("dir")).unwrap();
    nix::unistd::mkfifo(&host.root.join("pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    let told = String::from_utf8(download(&host.root, "/there").unwrap()).unwrap();
    assert!(told.starts_with("<fxi><Name>/there</Name><ft>0</ft><fs>10</fs><mt>"), "{told}");
    let no = |path| download(&host.root, path).unwrap_err();
    assert_eq!(["/none", "/dir", "/pipe"].map(no), [VixError::FileNotFound, VixError::NotAFile, VixError::NotAFile]);
    let may = |path, overwrite| upload(&host.root, path, overwrite);
    assert_eq!([may("/new", false), may("/there", true)], [Ok(vec![]), Ok(vec![])]);
    assert_eq!(may("/there", false), Err(VixError::FileExists));
    assert_eq!(may("/pipe", true), Err(VixError::NotAFile));
    assert_eq!(may("/none/new", true), Err(VixError::FileNotFound));
}
