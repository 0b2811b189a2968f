//! Images that are larger than they look: each is refused by the limit that it breaks, before anything is written, and nothing is left.

use std::io::Write as _;
use std::path::Path;
use std::process::Command;
use std::slice::from_ref;

use iso_builder::oci::{self, Error, Image, LayerError, LimitError, Limits};
use iso_builder::recipe::container_disk::{self, Options};
use iso_builder::recipe::virtual_disk::Form;
use iso_builder::tree::Time;

use crate::build::{
    Tar, at, config, content, docker_archive, flatten, flatten_layers, gzip, layer, lines, open, saved,
};
use crate::build::{blob, index, manifest, zstd};

/// The error of an image of these blobs, whose tars are `layers`, within `limits`.
fn refused(layers: &[Vec<u8>], blobs: &[Vec<u8>], limits: Limits) -> LimitError {
    let (_dir, path) = saved(&docker_archive(&config(layers), blobs).end());
    let mut image = open(path.to_str().unwrap()).unwrap();
    image.limits = limits;
    let error = read(&image).unwrap_err();
    let Error::Layer { source: LayerError::Limit(error), .. } = error else { panic!("{error:?}") };
    error
}

fn read(image: &Image) -> Result<(), Error> {
    let spool = tempfile::tempdir().unwrap();
    let read = image.flatten(spool.path(), &mut |_| {});
    assert_eq!(std::fs::read_dir(spool.path()).unwrap().count(), 0, "nothing is left");
    read.map(drop)
}

#[test]
fn a_stream_that_unpacks_to_far_more_is_left_early() {
    let mut tar = Tar::default();
    tar.plain(b'0', b"zeros", b"", &vec![0; 4 << 20]);
    let tar = tar.end();
    let limits = Limits { unpacked: 1 << 20, ..Limits::default() };
    for packed in [gzip(&tar), zstd(&tar)] {
        assert!(packed.len() < 20_000);
        let layers = from_ref(&tar);
        assert!(matches!(refused(layers, &[packed], limits), LimitError::Unpacked { limit } if limit == 1 << 20));
    }
    // what follows the end of the archive counts too, and so do several layers together
    let mut tail = layer(&["a=1"]);
    tail.resize(4 << 20, 0);
    let error = refused(from_ref(&tail), &[gzip(&tail)], limits);
    assert_eq!(error.to_string(), "with it the image unpacks to more than 1048576 bytes, the limit (--max-unpacked)");
    let small = layer(&[&format!("a={}", "x".repeat(100_000))]);
    let many = vec![small.clone(); 10];
    let limits = Limits { unpacked: 900_000, ..Limits::default() };
    assert!(matches!(refused(&many, &vec![gzip(&small); 10], limits), LimitError::Unpacked { .. }));
}

/// A few megabytes of memory as a file system, for as long as this lives.
struct Small(tempfile::TempDir);

impl Small {
    /// `None` for who may not mount.
    fn mount() -> Option<Small> {
        let dir = tempfile::tempdir().unwrap();
        let mount = Command::new("mount").args(["-t", "tmpfs", "-o", "size=4m", "tmpfs"]).arg(dir.path()).output();
        mount.ok().filter(|mount| mount.status.success()).map(|_| Small(dir))
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        Command::new("umount").arg("--lazy").arg(self.0.path()).status().ok();
    }
}

/// Where the whole archive is packed, its layers must be unpacked to be found, and the disk is others' too.
#[test]
fn an_archive_that_unpacks_to_more_than_there_is_room_for() {
    let Some(small) = Small::mount() else {
        return println!("an_archive_that_unpacks_to_more_than_there_is_room_for: skipped: mounting takes root");
    };
    let tar = layer(&["a=1"]);
    let mut archive = docker_archive(&config(from_ref(&tar)), from_ref(&tar));
    archive.plain(b'0', b"zeros", b"", &vec![0; 8 << 20]);
    for packed in [gzip(&archive.0), zstd(&archive.0)] {
        assert!(packed.len() < 20_000);
        let (_dir, path) = saved(&packed);
        let reference = path.to_str().unwrap().parse().unwrap();
        let error = oci::open(&reference, small.0.path()).unwrap_err();
        assert!(
            matches!(&error, Error::Room { dir, limit, .. } if dir == small.0.path() && *limit <= 4 << 20),
            "{error:?}"
        );
        // nothing is left of it: what fits is unpacked in the same place
        let (_dir, path) = saved(&gzip(&docker_archive(&config(from_ref(&tar)), from_ref(&tar)).end()));
        oci::open(&path.to_str().unwrap().parse().unwrap(), small.0.path()).unwrap();
    }
}

#[test]
fn more_entries_than_may_be() {
    let names: Vec<String> = (0..1001).map(|n| format!("{n}=")).collect();
    let lines: Vec<&str> = names.iter().map(String::as_str).collect();
    let tar = layer(&lines);
    let limits = Limits { entries: 1000, ..Limits::default() };
    let error = refused(from_ref(&tar), &[gzip(&tar)], limits);
    assert_eq!(error.to_string(), "with it the image has more than 1000 entries, the limit (--max-entries)");
    let (first, second) = (layer(&lines[..600]), layer(&lines[600..]));
    let layers = [first, second];
    assert!(matches!(refused(&layers, &layers, limits), LimitError::Entries { limit: 1000 }));
    let at_the_limit = layer(&lines[..1000]);
    let (_dir, path) = saved(&docker_archive(&config(from_ref(&at_the_limit)), from_ref(&at_the_limit)).end());
    let mut image = open(path.to_str().unwrap()).unwrap();
    image.limits = limits;
    read(&image).unwrap();
}

#[test]
fn names_and_xattrs_that_fill_the_memory() {
    let mut tar = Tar::default();
    for n in 0..40 {
        tar.pax(b'x', &[("SCHILY.xattr.user.a", &[b'x'; 60_000])]);
        tar.plain(b'0', format!("{n}").as_bytes(), b"", b"");
    }
    let tar = tar.end();
    let limits = Limits { described: 1 << 20, ..Limits::default() };
    let error = refused(from_ref(&tar), &[gzip(&tar)], limits);
    assert!(matches!(error, LimitError::Described { .. }), "{error}");
    // a file of many pieces is large to describe, whether its archive says them or its zeros do
    let mut bytes = vec![0; 2 << 20];
    bytes.iter_mut().step_by(8192).for_each(|byte| *byte = 1);
    let mut tar = Tar::default();
    (0..10).for_each(|n| tar.plain(b'0', format!("{n}").as_bytes(), b"", &bytes));
    let tar = tar.end();
    let limits = Limits { described: 10_000, ..Limits::default() };
    let error = refused(from_ref(&tar), &[zstd(&tar)], limits);
    assert!(matches!(error, LimitError::Described { .. }), "{error}");
}

/// A frame's header may ask for any amount of memory.
#[test]
fn a_zstd_window_beyond_the_limit() {
    let tar = layer(&["a=1"]);
    // magic; no single segment, no checksum, no size; a window of 2^(10+20); a last raw block
    let frame = |window_log: u8| {
        let mut frame = vec![0x28, 0xb5, 0x2f, 0xfd, 0x00, (window_log - 10) << 3];
        let len = u32::try_from(tar.len()).unwrap();
        frame.extend(&(len << 3 | 1).to_le_bytes()[..3]);
        frame.extend(&tar);
        frame
    };
    let flat = |packed: Vec<u8>| {
        let (_dir, path) = saved(&docker_archive(&config(from_ref(&tar)), &[packed]).end());
        flatten(path.to_str().unwrap())
    };
    assert_eq!(lines(&flat(frame(27)).unwrap()), ["a=1"]);
    let error = flat(frame(30)).unwrap_err();
    assert!(error.ends_with("its zstd window is larger than 128 MiB, the limit"), "{error}");
}

/// As `stargz` and `zstd:chunked` are made: many members or frames, an index behind them that only their own readers know.
#[test]
fn layers_in_pieces_are_read_whole() {
    let text = "text".repeat(50_000);
    let tar = layer(&["d/", &format!("d/a={text}"), "b=2"]);
    let members: Vec<u8> = tar.chunks(70_000).flat_map(gzip).collect();
    let mut frames: Vec<u8> = tar.chunks(70_000).flat_map(zstd).collect();
    let skippable = |len: u32| [&[0x50, 0x2a, 0x4d, 0x18], &len.to_le_bytes()[..], &vec![7; len as usize]].concat();
    frames.extend(skippable(1000));
    frames.extend(skippable(64));
    let leading = [skippable(3), frames.clone()].concat();
    // one that ends with an empty member, as stargz's footer is
    let footed = [members.clone(), gzip(b"")].concat();
    for packed in [members, footed, frames, leading] {
        let (_dir, path) = saved(&docker_archive(&config(from_ref(&tar)), from_ref(&packed)).end());
        assert_eq!(lines(&flatten(path.to_str().unwrap()).unwrap()), ["b=2", "d/", &format!("d/a={text}")]);
        // and in a layout, where the blob has a digest of its own
        let dir = tempfile::tempdir().unwrap();
        index(dir.path(), &[manifest(dir.path(), &config(from_ref(&tar)), &[packed])]);
        assert_eq!(lines(&flatten(dir.path().to_str().unwrap()).unwrap()).len(), 3);
    }
}

#[test]
fn layers_of_nothing() {
    let empty = vec![0; 1024];
    let layers = [empty.clone(), layer(&["a=1"]), Vec::new(), empty.clone()];
    let blobs = [gzip(&empty), zstd(&layers[1]), Vec::new(), empty];
    let (_dir, path) = saved(&docker_archive(&config(&layers), &blobs).end());
    assert_eq!(lines(&flatten(path.to_str().unwrap()).unwrap()), ["a=1"]);
    assert_eq!(lines(&flatten_layers(&[]).unwrap()), [""; 0]);
}

#[test]
fn manifests_that_are_not_read_say_why() {
    let dir = tempfile::tempdir().unwrap();
    let old =
        serde_json::json!({"schemaVersion": 1, "name": "x", "fsLayers": [{"blobSum": "sha256:00"}], "history": []});
    index(dir.path(), &[blob(dir.path(), old.to_string().as_bytes())]);
    let error = open(dir.path().to_str().unwrap()).unwrap_err();
    assert!(error.contains("is a manifest of schema 1, which is not read"), "{error}");

    let tar = layer(&["a=1"]);
    let dir = tempfile::tempdir().unwrap();
    let config = blob(dir.path(), config(from_ref(&tar)).to_string().as_bytes());
    let digest = format!("sha256:{}", "0".repeat(64));
    let foreign = serde_json::json!({
        "mediaType": "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
        "digest": digest, "size": 9, "urls": ["https://example.com/x\n"],
    });
    let document = serde_json::json!({"schemaVersion": 2, "config": config, "layers": [foreign]});
    index(dir.path(), &[blob(dir.path(), document.to_string().as_bytes())]);
    let error = open(dir.path().to_str().unwrap()).unwrap_err();
    assert!(
        error.ends_with(r"is a foreign layer, which is not in the image but at https://example.com/x\n"),
        "{error}"
    );
}

fn disk(image: &Path, output: &Path, size: Option<u64>) -> Result<(), container_disk::Error> {
    let options = Options { form: Form::Raw, size, layer: None, time: Time::default(), limits: Limits::default() };
    let reference = image.to_str().unwrap().parse().unwrap();
    container_disk::write(&reference, &options, output, &mut |_, _, _| {})
}

/// Nothing is written of what does not fit, and zeros take no room at all.
#[test]
fn a_disk_that_does_not_fit_is_not_begun() {
    let tar = layer(&[&format!("a={}", "x".repeat(3 << 20))]);
    let (dir, path) = saved(&docker_archive(&config(from_ref(&tar)), &[gzip(&tar)]).end());
    let output = dir.path().join("disk.raw");
    let error = disk(&path, &output, Some(2 << 20)).unwrap_err();
    assert!(format!("{:#}", anyhow::Error::from(error)).contains("more than the 2097152 asked for"));
    assert!(!output.exists());

    // a terabyte of holes, as an archive can say it in a few bytes
    let mut tar = Tar::default();
    tar.pax(
        b'x',
        &[
            ("GNU.sparse.major", b"1"),
            ("GNU.sparse.minor", b"0"),
            ("GNU.sparse.name", b"hole"),
            ("GNU.sparse.realsize", b"1099511627776"),
        ],
    );
    tar.plain(b'0', b"hole", b"", &{
        let mut map = b"1\n1099511627775\n1\n".to_vec();
        map.resize(512, 0);
        map.push(b'!');
        map
    });
    let tar = tar.end();
    let (dir, path) = saved(&docker_archive(&config(from_ref(&tar)), &[gzip(&tar)]).end());
    let output = dir.path().join("disk.raw");
    disk(&path, &output, None).unwrap();
    use std::os::unix::fs::MetadataExt as _;
    assert!(std::fs::metadata(&output).unwrap().blocks() * 512 < 4 << 20);
    let tree = flatten(path.to_str().unwrap()).unwrap();
    let iso_builder::tree::Kind::File(hole) = &tree.node(at(&tree, b"hole")).kind else { panic!() };
    let mut end = [9; 3];
    hole.read_exact_at(&mut end, (1 << 40) - 3).unwrap();
    assert_eq!(&end, b"\0\0!");
}

/// The layer is read twice: once to see what is in it, once to write it.
#[test]
fn an_image_that_changes_while_it_is_used() {
    let text = "x".repeat(100_000);
    let tar = layer(&[&format!("a={text}"), "b=2"]);
    let other = layer(&[&format!("a={}", text.replace('x', "y")), "b=2"]);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("image");
    std::fs::create_dir(&path).unwrap();
    let packed = zstd(&tar);
    index(&path, &[manifest(&path, &config(from_ref(&tar)), from_ref(&packed))]);
    let tree = flatten(path.to_str().unwrap()).unwrap();
    let mut file = std::fs::File::create(path.join("blobs/sha256").join(crate::build::sha256(&packed))).unwrap();
    file.write_all(&zstd(&other)).unwrap();
    let out = tempfile::tempfile().unwrap();
    let options = iso_builder::ext4::Options::default();
    let error = iso_builder::ext4::write(&tree, &options, &out, &mut |_, _| {}).unwrap_err();
    let error = format!("{:#}", anyhow::Error::from(error));
    assert!(error.starts_with("can not read the contents of "), "{error}");
    assert_eq!(content(&flatten_layers(&[tar]).unwrap(), at(&tree, b"b")), b"2");
}
