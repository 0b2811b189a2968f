//! The seeds of the fuzz targets, each as it is, cut at many places and with many bytes bent, in every test run.

use std::fs::{self, File};
use std::io::Write as _;
use std::num::NonZero;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use iso_builder::recipe::virtual_disk::{Form, VirtualDisk};
use iso_builder::tree::{Content, Kind, Meta, Node, ROOT, Tree};
use iso_builder::{cpio, ext4, iso9660};

#[allow(unreachable_pub, reason = "for the fuzz targets it is a library")]
#[path = "../fuzz/lib.rs"]
mod targets;

fn folder(target: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds").join(target)
}

/// Runs every seed of a target, and some of what lies close to it: a seed has thousands of bytes, and there is a fuzzer for the rest.
fn check(target: &str, holds: fn(&[u8]) -> bool) {
    let mut count = 0;
    for entry in fs::read_dir(folder(target)).unwrap() {
        let path = entry.unwrap().path();
        eprintln!("{}", path.display()); // shown when it fails
        let seed = fs::read(&path).unwrap();
        let whole = holds(&seed);
        // bending what is no image to begin with would show little
        assert!(whole || !READ.contains(&target), "it cannot be read");
        let step = seed.len() / 16 + 1;
        for at in (0..seed.len()).step_by(step) {
            holds(&seed[..at]);
            for bent in [0x01, 0xff] {
                let mut other = seed.clone();
                other[at] ^= bent;
                holds(&other);
            }
        }
        count += 1;
    }
    assert!(count >= 2, "{target} has only {count} seeds");
}

/// Targets whose seeds are whole images; the others' are parts, or have another digest than was said.
const READ: [&str; 4] = ["cpio", "ext4", "iso", "tar"];

macro_rules! targets {
    ($($name:ident),*) => {
        $(#[test] fn $name() { check(stringify!($name), targets::$name); })*
        const ALL: &[(&str, fn(&[u8]) -> bool)] = &[$((stringify!($name), targets::$name)),*];
    };
}

targets!(archive, cpio, document, ext4, iso, packed, tar, vmdk);

/// Bends seeds for a while where there is no fuzzer: `SECONDS_TO_BEND=60 cargo test -p iso-builder --test seeds -- --ignored bend`. What runs last is kept in
/// `$TMPDIR/bent.TARGET`, should it never end or end everything.
#[test]
#[ignore = "it takes as long as it is told to"]
fn bend() {
    let seconds = std::env::var("SECONDS_TO_BEND").map_or(10, |text| text.parse().expect("a number"));
    let only = std::env::var("TARGET_TO_BEND").ok();
    for (target, holds) in ALL.iter().filter(|(target, _)| only.as_deref().is_none_or(|only| only == *target)) {
        let paths = fs::read_dir(folder(target)).unwrap().map(|entry| entry.unwrap().path());
        let mut seeds: Vec<Vec<u8>> = paths.map(|path| fs::read(path).unwrap()).collect();
        seeds.sort();
        let kept = std::env::temp_dir().join(format!("bent.{target}"));
        let (start, mut count, mut read, mut slowest) = (Instant::now(), 0u64, 0u64, Duration::ZERO);
        let mut random = Random(0x9E37_79B9_7F4A_7C15);
        while start.elapsed() < Duration::from_secs(seconds) {
            let bent = random.bend(&seeds);
            fs::write(&kept, &bent).unwrap();
            let begun = Instant::now();
            read += u64::from(holds(&bent));
            count += 1;
            slowest = slowest.max(begun.elapsed());
            assert!(begun.elapsed() < Duration::from_secs(10), "{} takes too long", kept.display());
        }
        println!("{target}: {count} runs, {read} of them read, the slowest {slowest:?}");
    }
}

/// Marsaglia's xorshift: the same bytes in every run.
struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 11).unwrap() % end.max(1)
    }

    /// A seed with a few bytes, numbers or pieces of it changed.
    fn bend(&mut self, seeds: &[Vec<u8>]) -> Vec<u8> {
        let mut bent = seeds[self.below(seeds.len())].clone();
        for _ in 0..=self.below(4) {
            let at = self.below(bent.len());
            let end = bent.len().min(at + 1 + self.below(64));
            match self.below(8) {
                0 => bent[at..].iter_mut().take(1).for_each(|byte| *byte ^= 1 << self.below(8)),
                1 => bent[at..].iter_mut().take(1).for_each(|byte| *byte = self.below(256).to_le_bytes()[0]),
                2 => {
                    let number = NUMBERS[self.below(NUMBERS.len())].to_le_bytes();
                    let width = [1, 2, 4, 8][self.below(4)];
                    bent[at..].iter_mut().zip(number).take(width).for_each(|(byte, new)| *byte = new);
                }
                3 => bent[at..end].fill([0, 0xFF, b'0', b'/'][self.below(4)]),
                4 => drop(bent.drain(at..end)),
                5 => {
                    let other = &seeds[self.below(seeds.len())];
                    let from = self.below(other.len());
                    let piece = &other[from..other.len().min(from + 64)];
                    bent.splice(at..end, piece.iter().copied()).for_each(drop);
                }
                6 => {
                    let to = self.below(bent.len());
                    let piece = bent[at..end].to_vec();
                    bent[to..].iter_mut().zip(piece).for_each(|(byte, new)| *byte = new);
                }
                _ => bent.truncate(at),
            }
        }
        bent
    }
}

/// Ends of what numbers of any width can be, and what becomes none when it is multiplied by a sector or a block.
const NUMBERS: [u64; 16] = [
    0,
    1,
    2,
    0x7F,
    0x80,
    0xFF,
    0x7FFF,
    0xFFFF,
    1 << 20,
    0x7FFF_FFFF,
    0xFFFF_FFFF,
    1 << 32,
    1 << 53,
    1 << 55,
    i64::MAX as u64,
    u64::MAX,
];

#[test]
fn records_make_the_image() {
    let mut image = vec![0; 8192];
    image[100..300].fill(7);
    image[8000] = 1;
    assert!(targets::image(&targets::records(&image)) == image);
}

/// A few files of each kind; the names are long enough to need what the formats have for such.
fn sample(files: usize, xattrs: bool) -> Tree {
    let mut tree = Tree::new(Meta { mode: 0o755, ..Meta::default() });
    let node = |kind| Node { meta: Meta { mode: 0o644, uid: 70_000, ..Meta::default() }, kind };
    let dir = tree.insert(ROOT, b"dir", node(Kind::Dir(Default::default())));
    for number in 0..files {
        let name = format!("{}{number}", "name".repeat(number % 40));
        let content = Content::from_bytes(vec![b'x'; number * 37]);
        let mut node = node(Kind::File(content));
        if xattrs {
            node.meta.xattrs.insert(b"user.note".to_vec(), vec![b'v'; number * 9]);
        }
        let id = tree.insert(dir, name.as_bytes(), node);
        if number % 5 == 0 {
            tree.link(ROOT, format!("link{number}").as_bytes(), id);
        }
    }
    tree.insert(ROOT, b"symlink", node(Kind::Symlink(b"dir/../dir/./name".repeat(6))));
    tree.insert(ROOT, b"null", node(Kind::CharDevice { major: 1, minor: 3 }));
    tree.insert(ROOT, b"fifo", node(Kind::Fifo));
    tree
}

/// Makes the seeds that our own writers can make: `cargo test -p iso-builder --test seeds -- --ignored`.
#[test]
#[ignore = "it writes into the source tree"]
fn make_seeds() {
    let write = |target: &str, name: &str, bytes: &[u8]| {
        fs::create_dir_all(folder(target)).unwrap();
        fs::write(folder(target).join(name), bytes).unwrap();
    };
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    for (name, files) in [("few", 3), ("some", 30)] {
        let tree = sample(files, true);
        let file = File::options().read(true).write(true).create_new(true).open(at(name)).unwrap();
        let options = ext4::Options { journal: false, ..ext4::Options::default() };
        ext4::write(&tree, &options, &file, &mut |_, _| {}).unwrap();
        write("ext4", name, &targets::records(&fs::read(at(name)).unwrap()));
        let file = File::options().read(true).write(true).create_new(true).open(at("iso")).unwrap();
        let options = iso9660::Options {
            volume: "SEED".into(),
            publisher: "seed".into(),
            time: Default::default(),
            joliet: files > 3,
            boot: Default::default(),
        };
        let tree = sample(files, false);
        iso9660::write(&tree, &options, &file).unwrap();
        write("iso", name, &targets::records(&fs::read(at("iso")).unwrap()));
        fs::remove_file(at("iso")).unwrap();
        let mut archive = Vec::new();
        cpio::write(&tree, &mut archive).unwrap();
        write("cpio", name, &archive);
    }
    let raw = File::options().read(true).write(true).create_new(true).open(at("raw")).unwrap();
    raw.set_len(2 << 20).unwrap();
    raw.write_all_at(b"some", 70_000).unwrap();
    raw.write_all_at(&[7; 1000], 1 << 20).unwrap();
    let forms = [("sparse", Form::Sparse), ("stream", Form::Stream { threads: NonZero::<usize>::MIN })];
    for (name, form) in forms {
        VirtualDisk::create(&at(name), &form).unwrap().store(&raw, 2 << 20, &mut |_| {}).unwrap();
        write("vmdk", name, &targets::records(&fs::read(at(name)).unwrap()));
    }
    let text = "# Disk DescriptorFile\nCID=1\nparentCID=2\nparentFileNameHint=\"disk.vmdk\"\n";
    write("vmdk", "descriptor", format!("{text}RW 4 FLAT \"disk.vmdk\" 0\nRW 9 SPARSE \"x\"\nRW 8 ZERO\n").as_bytes());

    let mut builder = tar::Builder::new(Vec::new());
    let mut add = |name: &str, kind, size: usize, link: Option<&str>| {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_size(size as u64);
        header.set_mode(0o755);
        if let Some(link) = link {
            header.set_link_name(link).unwrap();
        }
        builder.append_data(&mut header, name, &vec![b'x'; size][..]).unwrap();
    };
    add("dir/", tar::EntryType::Directory, 0, None);
    add("dir/file", tar::EntryType::Regular, 600, None);
    add("hard", tar::EntryType::Link, 0, Some("dir/file"));
    add("soft", tar::EntryType::Symlink, 0, Some("dir"));
    add(&"long/".repeat(40), tar::EntryType::Directory, 0, None);
    add("dir/.wh.gone", tar::EntryType::Regular, 0, None);
    add("dir/.wh..wh..opq", tar::EntryType::Regular, 0, None);
    let mut layer = builder.into_inner().unwrap();
    write("tar", "gnu", &layer);
    let pax = b"22 path=dir/other-one\n32 SCHILY.xattr.user.a=\n\x00binary\n21 mtime=1.000000001\n";
    let mut header = tar::Header::new_ustar();
    header.set_entry_type(tar::EntryType::XHeader);
    header.set_size(pax.len() as u64);
    header.set_cksum();
    let mut with_pax = [header.as_bytes(), &pax[..]].concat();
    with_pax.resize(1024, 0);
    with_pax.append(&mut layer.clone());
    write("tar", "pax", &with_pax);
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    gzip.write_all(&layer).unwrap();
    write("packed", "gzip", &gzip.finish().unwrap());
    write("packed", "zstd", &zstd::encode_all(&layer[..], 3).unwrap());

    let hex = iso_builder::digest::bytes(&layer);
    let config = format!(
        r#"{{"architecture":"amd64","os":"linux","config":{{"Env":["A=b"],"Cmd":["sh"],"Entrypoint":["/x"],"User":"1:2","WorkingDir":"/w","ExposedPorts":{{"80/tcp":{{}}}},"Volumes":{{"/v":{{}}}},"StopSignal":"TERM","Labels":{{"a":"b"}},"Healthcheck":{{"Test":["CMD","x"],"Interval":1000000000}}}},"rootfs":{{"type":"layers","diff_ids":["sha256:{hex}"]}}}}"#
    );
    write("document", "config", config.as_bytes());
    let digest = format!("sha256:{hex}");
    let manifest = format!(
        r#"{{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"{digest}","size":5}},"layers":[{{"mediaType":"application/vnd.oci.image.layer.v1.tar+gzip","digest":"{digest}","size":10240}}]}}"#
    );
    write("document", "manifest", manifest.as_bytes());
    let index = format!(
        r#"{{"schemaVersion":2,"manifests":[{{"mediaType":"application/vnd.oci.image.index.v1+json","digest":"{digest}","size":7,"platform":{{"architecture":"amd64","os":"linux","variant":"v2"}},"annotations":{{"org.opencontainers.image.ref.name":"a"}}}}]}}"#
    );
    write("document", "index", index.as_bytes());

    let mut save = tar::Builder::new(Vec::new());
    let mut add = |name: &str, bytes: &[u8]| {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        save.append_data(&mut header, name, bytes).unwrap();
    };
    layer.truncate(layer.len() / 512 * 512);
    add("manifest.json", br#"[{"Config":"c.json","RepoTags":["a:b"],"Layers":["l/layer.tar"]}]"#);
    add("c.json", config.as_bytes());
    add("l/layer.tar", &layer);
    write("archive", "save", &save.into_inner().unwrap());
    write("archive", "empty", &[0; 1024]);
}
