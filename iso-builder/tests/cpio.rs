//! The initramfs archive, read back by a reader written for this test and, where it is installed, by `cpio`.
//! (Its true judge is the kernel, in the end-to-end tests.)

use std::io::Write;
use std::process::{Command, Stdio};

use iso_builder::cpio;
use iso_builder::recipe::initramfs;
use iso_builder::tree::{Content, Kind, Meta, Node, ROOT, Time, Tree};

#[test]
fn the_initramfs_holds_one_program_and_what_it_needs_first() {
    let tree = initramfs::tree(Content::from_bytes(*b"\x7fELF..."), Time { secs: 5, nanos: 0 });
    let listing: Vec<String> = read(&archive(&tree)).iter().map(Entry::line).collect();
    assert_eq!(
        listing,
        [
            "040755 0:0 2 5 0,0 dev ",
            "020600 0:0 1 5 5,1 dev/console ",
            "020666 0:0 1 5 1,3 dev/null ",
            "100755 0:0 1 5 0,0 init \u{7f}ELF...",
            "040755 0:0 2 5 0,0 newroot ",
            "040755 0:0 2 5 0,0 proc ",
            "040755 0:0 2 5 0,0 sys ",
        ]
    );
}

#[test]
fn a_file_of_two_names_has_its_content_once_at_the_last() {
    let entries = read(&archive(&sample()));
    let [a, b] = ["a", "b"].map(|name| entries.iter().find(|entry| entry.name == name).unwrap());
    assert_eq!(a.ino, b.ino);
    assert_eq!((a.links, b.links), (2, 2));
    assert_eq!((a.body.as_slice(), b.body.as_slice()), (&b""[..], &b"twice"[..]));
}

#[test]
fn the_dump_tells_everything() {
    let dump = cpio::dump(&mut archive(&sample()).as_slice()).unwrap();
    let twice = iso_builder::digest::bytes(b"twice");
    let sevens = iso_builder::digest::bytes(&[7; 100_000]);
    let empty = iso_builder::digest::bytes(b"");
    assert_eq!(
        dump,
        format!(
            "/a\n    100644 0:0 0 inode 1 links 2 0 bytes, sha256 {empty}\n\
             /b\n    100644 0:0 0 inode 1 links 2 5 bytes, sha256 {twice}\n\
             /d\n    040644 0:0 0 inode 2 links 2\n\
             /d/f\n    100644 0:0 0 inode 3 links 1 100000 bytes, sha256 {sevens}\n\
             /link\n    120644 0:0 0 inode 4 links 1 -> d/f\n"
        )
    );
    assert!(cpio::dump(&mut &archive(&sample())[..300]).is_err(), "an archive that ends early");
}

#[test]
fn the_same_tree_gives_the_same_bytes() {
    assert_eq!(archive(&sample()), archive(&sample()));
}

#[test]
fn cpio_lists_it() {
    let cpio = Command::new("cpio").args(["-it", "--quiet"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
    let mut cpio = match cpio {
        Ok(cpio) => cpio,
        Err(error) => return eprintln!("SKIPPED: cpio: {error}"),
    };
    cpio.stdin.take().unwrap().write_all(&archive(&sample())).unwrap();
    let output = cpio.wait_with_output().unwrap();
    assert!(output.status.success());
    assert_eq!(String::from_utf8(output.stdout).unwrap(), "a\nb\nd\nd/f\nlink\n");
}

fn sample() -> Tree {
    let node = |kind| Node { meta: Meta { mode: 0o644, ..Meta::default() }, kind };
    let mut tree = Tree::new(Meta::default());
    let file = tree.insert(ROOT, b"a", node(Kind::File(Content::from_bytes(*b"twice"))));
    tree.link(ROOT, b"b", file);
    let dir = tree.insert(ROOT, b"d", node(Kind::Dir(Default::default())));
    tree.insert(dir, b"f", node(Kind::File(Content::from_bytes(vec![7; 100_000]))));
    tree.insert(ROOT, b"link", node(Kind::Symlink(b"d/f".to_vec())));
    tree
}

fn archive(tree: &Tree) -> Vec<u8> {
    let mut out = Vec::new();
    cpio::write(tree, &mut out).unwrap();
    out
}

struct Entry {
    ino: u32,
    mode: u32,
    owner: (u32, u32),
    links: u32,
    mtime: u32,
    device: (u32, u32),
    name: String,
    body: Vec<u8>,
}

impl Entry {
    fn line(&self) -> String {
        let (uid, gid) = self.owner;
        let (major, minor) = self.device;
        let body = String::from_utf8_lossy(&self.body);
        format!("{:06o} {uid}:{gid} {} {} {major},{minor} {} {body}", self.mode, self.links, self.mtime, self.name)
    }
}

fn read(archive: &[u8]) -> Vec<Entry> {
    let mut entries = Vec::new();
    let mut at = 0;
    loop {
        assert_eq!(&archive[at..at + 6], b"070701");
        let field = |n: usize| {
            let text = str::from_utf8(&archive[at + 6 + 8 * n..at + 14 + 8 * n]).unwrap();
            u32::from_str_radix(text, 16).unwrap()
        };
        let name_end = at + 110 + field(11) as usize;
        let name = str::from_utf8(&archive[at + 110..name_end - 1]).unwrap().to_owned();
        let body = name_end.next_multiple_of(4);
        let end = body + field(6) as usize;
        if name == "TRAILER!!!" {
            assert!(archive[end..].iter().all(|byte| *byte == 0));
            return entries;
        }
        entries.push(Entry {
            ino: field(0),
            mode: field(1),
            owner: (field(2), field(3)),
            links: field(4),
            mtime: field(5),
            device: (field(9), field(10)),
            name,
            body: archive[body..end].to_vec(),
        });
        at = end.next_multiple_of(4);
    }
}
