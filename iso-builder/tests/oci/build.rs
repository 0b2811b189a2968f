//! Images made on the spot: tar streams by hand, for what no tool would write, and the archives and layouts around them.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use iso_builder::oci::{self, Image, Reference};
use iso_builder::tree::{Kind, NodeId, ROOT, Tree};
use sha2::{Digest, Sha256};

/// A tar stream, written block by block.
#[derive(Default)]
pub(crate) struct Tar(pub(crate) Vec<u8>);

impl Tar {
    /// Adds a header as it stands, with its checksum, and data behind it.
    pub(crate) fn member(
        &mut self,
        flag: u8,
        name: &[u8],
        link: &[u8],
        data: &[u8],
        change: impl FnOnce(&mut [u8; 512]),
    ) {
        let mut header = [0; 512];
        header[..name.len()].copy_from_slice(name);
        header[100..108].copy_from_slice(b"0000644\0");
        header[108..116].copy_from_slice(b"0000000\0");
        header[116..124].copy_from_slice(b"0000000\0");
        header[124..136].copy_from_slice(format!("{:011o}\0", data.len()).as_bytes());
        header[136..148].copy_from_slice(b"00000000000\0");
        header[156] = flag;
        header[157..157 + link.len()].copy_from_slice(link);
        header[257..265].copy_from_slice(b"ustar\x0000");
        change(&mut header);
        header[148..156].fill(b' ');
        let sum: u32 = header.iter().map(|&byte| u32::from(byte)).sum();
        header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        self.0.extend(header);
        self.data(data);
    }

    /// Adds bytes and fills their last block.
    pub(crate) fn data(&mut self, data: &[u8]) {
        self.0.extend(data);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
    }

    pub(crate) fn plain(&mut self, flag: u8, name: &[u8], link: &[u8], data: &[u8]) {
        self.member(flag, name, link, data, |_| {});
    }

    /// Adds an extended header (`x`, or `g` for all that follows).
    pub(crate) fn pax(&mut self, flag: u8, records: &[(&str, &[u8])]) {
        let mut data = Vec::new();
        for (key, value) in records {
            let rest = key.len() + value.len() + 3;
            let len = (1..).find(|len| len - len.to_string().len() == rest).unwrap();
            data.extend(format!("{len} {key}=").as_bytes());
            data.extend(*value);
            data.push(b'\n');
        }
        self.plain(flag, b"pax", b"", &data);
    }

    pub(crate) fn end(mut self) -> Vec<u8> {
        self.0.extend([0; 1024]);
        self.0
    }
}

/// A layer from lines: `a/` directory, `a=text` file, `a -> b` symlink, `a => b` hard link, `a |` fifo.
pub(crate) fn layer(lines: &[&str]) -> Vec<u8> {
    let mut tar = Tar::default();
    for line in lines {
        if let Some((name, target)) = line.split_once(" -> ") {
            tar.plain(b'2', name.as_bytes(), target.as_bytes(), b"");
        } else if let Some((name, target)) = line.split_once(" => ") {
            tar.plain(b'1', name.as_bytes(), target.as_bytes(), b"");
        } else if let Some(name) = line.strip_suffix(" |") {
            tar.plain(b'6', name.as_bytes(), b"", b"");
        } else if let Some((name, text)) = line.split_once('=') {
            tar.plain(b'0', name.as_bytes(), b"", text.as_bytes());
        } else {
            tar.member(b'5', line.as_bytes(), b"", b"", |header| header[100..108].copy_from_slice(b"0000700\0"));
        }
    }
    tar.end()
}

/// The files of a tree in the language of [`layer`]; a directory that no entry described has a `?` behind it.
pub(crate) fn lines(tree: &Tree) -> Vec<String> {
    let mut lines = Vec::new();
    let mut first_names = Vec::new();
    walk(tree, ROOT, String::new(), &mut |path, id| {
        if let Some((_, first)) = first_names.iter().find(|(seen, _)| *seen == id) {
            return lines.push(format!("{path} => {first}"));
        }
        let node = tree.node(id);
        first_names.push((id, path.to_owned()));
        lines.push(match &node.kind {
            Kind::Dir(_) if node.meta.mode == 0o755 => format!("{path}/?"),
            Kind::Dir(_) => format!("{path}/"),
            Kind::File(_) => format!("{path}={}", String::from_utf8_lossy(&content(tree, id))),
            Kind::Symlink(target) => format!("{path} -> {}", String::from_utf8_lossy(target)),
            Kind::Fifo => format!("{path} |"),
            other => format!("{path} {other:?}"),
        });
    });
    lines
}

fn walk(tree: &Tree, dir: NodeId, path: String, see: &mut dyn FnMut(&str, NodeId)) {
    for (name, &id) in tree.entries(dir).into_iter().flatten() {
        let path = format!("{path}{}", String::from_utf8_lossy(name));
        see(&path, id);
        walk(tree, id, path + "/", see);
    }
}

/// The bytes of a regular file.
pub(crate) fn content(tree: &Tree, id: NodeId) -> Vec<u8> {
    let Kind::File(content) = &tree.node(id).kind else { panic!("no regular file") };
    let mut bytes = vec![0; usize::try_from(content.size).unwrap()];
    content.read_exact_at(&mut bytes, 0).unwrap();
    bytes
}

/// The inode at a path without symlinks.
pub(crate) fn at(tree: &Tree, path: &[u8]) -> NodeId {
    path.split(|&byte| byte == b'/').fold(ROOT, |dir, name| tree.child(dir, name).expect("the path exists"))
}

pub(crate) fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

pub(crate) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

pub(crate) fn zstd(bytes: &[u8]) -> Vec<u8> {
    zstd::encode_all(bytes, 3).unwrap()
}

/// An image's configuration for linux/amd64 with these layers.
pub(crate) fn config(layers: &[Vec<u8>]) -> serde_json::Value {
    let ids: Vec<String> = layers.iter().map(|layer| format!("sha256:{}", sha256(layer))).collect();
    serde_json::json!({"os": "linux", "architecture": "amd64", "rootfs": {"type": "layers", "diff_ids": ids}})
}

/// A docker-archive of the older form, with layers as they are given.
pub(crate) fn docker_archive(config: &serde_json::Value, blobs: &[Vec<u8>]) -> Tar {
    let config = config.to_string();
    let config_name = format!("{}.json", sha256(config.as_bytes()));
    let names: Vec<String> = (0..blobs.len()).map(|index| format!("{index:064x}/layer.tar")).collect();
    let mut tar = Tar::default();
    for (name, blob) in names.iter().zip(blobs) {
        tar.plain(b'0', name.as_bytes(), b"", blob);
    }
    tar.plain(b'0', config_name.as_bytes(), b"", config.as_bytes());
    let manifest = serde_json::json!([{"Config": config_name, "RepoTags": ["test:latest"], "Layers": names}]);
    tar.plain(b'0', b"manifest.json", b"", manifest.to_string().as_bytes());
    tar
}

/// A blob in an OCI layout, and its descriptor.
pub(crate) fn blob(dir: &Path, bytes: &[u8]) -> serde_json::Value {
    let digest = sha256(bytes);
    fs::create_dir_all(dir.join("blobs/sha256")).unwrap();
    fs::write(dir.join("blobs/sha256").join(&digest), bytes).unwrap();
    serde_json::json!({"digest": format!("sha256:{digest}"), "size": bytes.len()})
}

/// A manifest and what it names in an OCI layout; its descriptor.
pub(crate) fn manifest(dir: &Path, config: &serde_json::Value, blobs: &[Vec<u8>]) -> serde_json::Value {
    let layers: Vec<_> = blobs.iter().map(|bytes| blob(dir, bytes)).collect();
    let config = blob(dir, config.to_string().as_bytes());
    blob(dir, serde_json::json!({"schemaVersion": 2, "config": config, "layers": layers}).to_string().as_bytes())
}

/// The index of an OCI layout.
pub(crate) fn index(dir: &Path, manifests: &[serde_json::Value]) {
    fs::write(dir.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
    let index = serde_json::json!({"schemaVersion": 2, "manifests": manifests});
    fs::write(dir.join("index.json"), index.to_string()).unwrap();
}

/// A descriptor with one more field.
pub(crate) fn with(mut descriptor: serde_json::Value, key: &str, value: serde_json::Value) -> serde_json::Value {
    descriptor[key] = value;
    descriptor
}

pub(crate) fn tag(descriptor: serde_json::Value, name: &str) -> serde_json::Value {
    with(descriptor, "annotations", serde_json::json!({"org.opencontainers.image.ref.name": name}))
}

/// A file in a directory of its own, which goes with the handle.
pub(crate) fn saved(bytes: &[u8]) -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("image.tar");
    fs::write(&path, bytes).unwrap();
    (dir, path)
}

/// Opens an image; an error as a user sees it, less the directory.
pub(crate) fn open(reference: &str) -> Result<Image, String> {
    let reference = reference.parse::<Reference>().unwrap();
    let dir = tempfile::tempdir().unwrap();
    oci::open(&reference, dir.path()).map_err(|error| told(error, reference.path().unwrap()))
}

/// Opens and flattens.
pub(crate) fn flatten(reference: &str) -> Result<Tree, String> {
    let image = open(reference)?;
    let parsed = reference.parse::<Reference>().unwrap();
    let dir = tempfile::tempdir().unwrap();
    image.flatten(dir.path(), &mut |_| {}).map_err(|error| told(error, parsed.path().unwrap()))
}

/// A docker-archive of the layers, flattened.
pub(crate) fn flatten_layers(layers: &[Vec<u8>]) -> Result<Tree, String> {
    let (_dir, path) = saved(&docker_archive(&config(layers), layers).end());
    flatten(path.to_str().unwrap())
}

fn told(error: oci::Error, path: &Path) -> String {
    let parent = format!("{}/", path.parent().unwrap().display());
    let text = format!("{:#}", anyhow::Error::from(error)).replace(&parent, "");
    assert!(!text.contains('\n'), "an error is one line: {text}");
    text
}
