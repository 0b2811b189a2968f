//! Which crates are in a program: out of what `cargo metadata` prints, and the Cargo.lock of that workspace for the checksums.
//!
//! It decides what counts as linked: what the program reaches through ordinary dependencies, macros excepted. Macros, build scripts and what only they need ran
//! while the program was built. Cargo's features are those of the whole workspace, so a crate too many may be named, never one too few. Cargo is not called:
//! who makes a release hands its output in.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::digest;

/// The crates of a workspace, for one platform.
#[derive(Debug)]
pub struct Crates {
    /// SHA-256 of Cargo.lock.
    pub lock: String,
    metadata: Metadata,
    checksums: HashMap<(String, String), String>,
    path: PathBuf,
}

/// One crate.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Crate {
    pub name: String,
    pub version: String,
    /// As an SPDX expression; `None` when the crate does not say.
    pub licence: Option<String>,
    /// SHA-256 of the archive in the registry; `None` for a crate of the workspace.
    pub checksum: Option<String>,
}

/// A program and what it was made of, each list in order of name and version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program {
    pub itself: Crate,
    pub linked: Vec<Crate>,
    /// Macros, build scripts, and what only these need.
    pub built_with: Vec<Crate>,
}

impl Crates {
    /// Reads the output of `cargo metadata --locked --format-version 1 --filter-platform TARGET`, and Cargo.lock in the workspace that it names.
    pub fn read(path: &Path) -> Result<Crates, Error> {
        let text =
            |path: &Path| fs::read_to_string(path).map_err(|source| Error::File { path: path.to_owned(), source });
        let metadata: Metadata =
            serde_json::from_str(&text(path)?).map_err(|source| Error::Metadata { path: path.to_owned(), source })?;
        let lock = text(&metadata.workspace_root.join("Cargo.lock"))?;
        let (checksums, lock) = (checksums(&lock), digest::bytes(lock.as_bytes()));
        Ok(Crates { lock, metadata, checksums, path: path.to_owned() })
    }

    /// What the workspace's program of that name is made of.
    pub fn program(&self, name: &str) -> Result<Program, Error> {
        let packages: BTreeMap<&str, &Package> =
            self.metadata.packages.iter().map(|package| (package.id.as_str(), package)).collect();
        let nodes: BTreeMap<&str, &Node> =
            self.metadata.resolve.nodes.iter().map(|node| (node.id.as_str(), node)).collect();
        let is_macro = |id: &str| packages.get(id).is_some_and(|package| package.is_macro());
        let root = self.metadata.packages.iter().find(|package| package.source.is_none() && package.name == name);
        let root = root.ok_or_else(|| Error::NoProgram { path: self.path.clone(), name: name.to_owned() })?;
        let reach = |follow: &dyn Fn(&str, &Edge) -> bool| {
            let mut seen = BTreeSet::from([root.id.as_str()]);
            let mut next = vec![root.id.as_str()];
            while let Some(id) = next.pop() {
                let edges = nodes.get(id).into_iter().flat_map(|node| &node.deps);
                for edge in edges.filter(|edge| follow(id, edge)) {
                    if seen.insert(&edge.pkg) {
                        next.push(&edge.pkg);
                    }
                }
            }
            seen
        };
        let linked = reach(&|_, edge| edge.is(None) && !is_macro(&edge.pkg));
        let all = reach(&|_, edge| edge.is(None) || edge.is(Some("build")));
        let list = |ids: &mut dyn Iterator<Item = &str>| {
            let crates = ids.map(|id| match packages.get(id) {
                Some(package) => self.describe(package),
                None => Err(Error::NoProgram { path: self.path.clone(), name: id.to_owned() }),
            });
            let mut crates = crates.collect::<Result<Vec<_>, _>>()?;
            crates.sort();
            Ok(crates)
        };
        Ok(Program {
            itself: self.describe(root)?,
            linked: list(&mut linked.iter().copied().filter(|id| *id != root.id))?,
            built_with: list(&mut all.difference(&linked).copied())?,
        })
    }

    fn describe(&self, package: &Package) -> Result<Crate, Error> {
        let key = (package.name.clone(), package.version.clone());
        let checksum = self.checksums.get(&key).cloned();
        if package.source.is_some() && checksum.is_none() {
            return Err(Error::Stale { path: self.path.clone(), name: key.0, version: key.1 });
        }
        let licence = package.license.as_deref().and_then(expression);
        Ok(Crate { name: key.0, version: key.1, licence, checksum })
    }
}

/// A crate's licence as SPDX writes it. Old crates part alternatives by a slash.
fn expression(licence: &str) -> Option<String> {
    let words = licence.replace('/', " OR ");
    let plain = words.chars().all(|c| c.is_ascii_alphanumeric() || " .-+()".contains(c));
    let words: Vec<&str> = words.split_whitespace().collect();
    (plain && !words.is_empty()).then(|| words.join(" "))
}

/// Name and version of each package in a Cargo.lock that comes from a registry, and the SHA-256 of its archive.
fn checksums(lock: &str) -> HashMap<(String, String), String> {
    let mut found = HashMap::new();
    for block in lock.split("[[package]]").skip(1) {
        let value = |key: &str| {
            let mut pairs = block.lines().filter_map(|line| line.split_once(" = "));
            let (_, value) = pairs.find(|(name, _)| *name == key)?;
            Some(value.strip_prefix('"')?.strip_suffix('"')?.to_owned())
        };
        if let (Some(name), Some(version), Some(checksum)) = (value("name"), value("version"), value("checksum")) {
            found.insert((name, version), checksum);
        }
    }
    found
}

/// What is used of `cargo metadata`, as The Cargo Book describes it.
#[derive(Debug, Deserialize)]
struct Metadata {
    packages: Vec<Package>,
    resolve: Resolve,
    workspace_root: PathBuf,
}

#[derive(Debug, Deserialize)]
struct Package {
    id: String,
    name: String,
    version: String,
    license: Option<String>,
    /// `None` for a crate of the workspace.
    source: Option<String>,
    targets: Vec<Target>,
}

impl Package {
    fn is_macro(&self) -> bool {
        self.targets.iter().any(|target| target.kind.iter().any(|kind| kind == "proc-macro"))
    }
}

#[derive(Debug, Deserialize)]
struct Target {
    kind: Vec<String>,
}

#[derive(Debug, Deserialize)]
struct Resolve {
    nodes: Vec<Node>,
}

#[derive(Debug, Deserialize)]
struct Node {
    id: String,
    deps: Vec<Edge>,
}

#[derive(Debug, Deserialize)]
struct Edge {
    pkg: String,
    dep_kinds: Vec<DepKind>,
}

impl Edge {
    /// Is it also a dependency of that kind? `None` is the ordinary one.
    fn is(&self, kind: Option<&str>) -> bool {
        self.dep_kinds.iter().any(|of| of.kind.as_deref() == kind)
    }
}

#[derive(Debug, Deserialize)]
struct DepKind {
    kind: Option<String>,
}

/// Why the crates are not known.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{}", path.display())]
    File { path: PathBuf, source: io::Error },
    #[error("{} is not what `cargo metadata --locked --format-version 1` prints", path.display())]
    Metadata { path: PathBuf, source: serde_json::Error },
    #[error("{} knows no package {name}", path.display())]
    NoProgram { path: PathBuf, name: String },
    #[error("{} is older than Cargo.lock, which lacks {name} {version}: run cargo metadata again", path.display())]
    Stale { path: PathBuf, name: String, version: String },
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A workspace of one program: it links `a` and through it `b`, and a macro that needs `b` and `c` writes some of it.
    pub(in crate::artifacts) fn workspace(dir: &Path) -> PathBuf {
        let package = |name: &str, licence: &str, registry: bool, kind: &str| {
            serde_json::json!({
                "id": name, "name": name, "version": "1.0.0", "license": licence, "targets": [{ "kind": [kind] }],
                "source": registry.then_some("registry+x"), "ignored": 1,
            })
        };
        let edge = |name: &str, kind: Option<&str>| serde_json::json!({ "pkg": name, "dep_kinds": [{ "kind": kind }] });
        let node = |name: &str, deps: &[serde_json::Value]| serde_json::json!({ "id": name, "deps": deps });
        let metadata = serde_json::json!({
            "workspace_root": dir,
            "packages": [
                package("tether", "Apache-2.0", false, "bin"), package("a", "MIT/Apache-2.0", true, "lib"),
                package("b", "MIT", true, "lib"), package("c", "?!", true, "lib"), package("m", "MIT", true, "proc-macro"),
                package("t", "MIT", true, "lib"),
            ],
            "resolve": { "nodes": [
                node("tether", &[edge("a", None), edge("m", None), edge("t", Some("dev"))]),
                node("a", &[edge("b", None)]), node("m", &[edge("b", None), edge("c", None)]),
                node("b", &[]), node("c", &[]), node("t", &[]),
            ]},
        });
        let lock = ["a", "b", "c", "m", "t"].map(|name| {
            let checksum = digest::bytes(name.as_bytes());
            format!(
                "[[package]]\nname = \"{name}\"\nversion = \"1.0.0\"\nsource = \"x\"\nchecksum = \"{checksum}\"\n\n"
            )
        });
        fs::write(dir.join("Cargo.lock"), format!("version = 4\n\n{}", lock.concat())).unwrap();
        let path = dir.join("crates.json");
        fs::write(&path, metadata.to_string()).unwrap();
        path
    }

    #[test]
    fn what_is_linked_and_what_only_ran() {
        let dir = tempfile::tempdir().unwrap();
        let program = Crates::read(&workspace(dir.path())).unwrap().program("tether").unwrap();
        let names = |crates: &[Crate]| crates.iter().map(|one| one.name.clone()).collect::<Vec<_>>().concat();
        assert_eq!((names(&program.linked), names(&program.built_with)), ("ab".into(), "cm".into()));
        assert_eq!(program.linked[0].licence.as_deref(), Some("MIT OR Apache-2.0"));
        assert_eq!(program.linked[0].checksum, Some(digest::bytes(b"a")));
        assert_eq!(program.built_with[0].licence, None);
        assert_eq!((program.itself.licence.as_deref(), program.itself.checksum), (Some("Apache-2.0"), None));
    }

    #[test]
    fn what_does_not_fit_together_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = workspace(dir.path());
        let said = |error: Error| error.to_string();
        assert!(said(Crates::read(&path).unwrap().program("vch").unwrap_err()).ends_with("knows no package vch"));
        fs::write(dir.path().join("Cargo.lock"), "version = 4\n").unwrap();
        let error = said(Crates::read(&path).unwrap().program("tether").unwrap_err());
        assert!(error.contains("lacks a 1.0.0"), "{error}");
        fs::write(&path, "{}").unwrap();
        assert!(said(Crates::read(&path).unwrap_err()).contains("cargo metadata --locked"));
    }
}
