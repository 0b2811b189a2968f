//! The bill of materials: an SPDX 2.3 document in JSON (ISO/IEC 5962, spdx.github.io/spdx-spec/v2.3).
//!
//! It decides how what is known is said: everything is a package, with SHA-256 where its bytes are known. SPDX's own notion of files would want SHA-1 of each;
//! the files are in the manifest beside it. What is not known is `NOASSERTION`, or left out where SPDX lets it be.

use serde::Serialize;

use super::crates::Crate;
use super::origin::{self, Found};
use super::{Facts, Program, date};
use crate::digest;

/// The document as JSON.
pub(super) fn document(facts: &Facts) -> Vec<u8> {
    let mut bill = Bill::default();
    let release = bill.add(Package {
        version_info: Some(super::VERSION.to_owned()),
        license_declared: OURS.to_owned(),
        comment: Some("the images of one release; what they contain has licences of its own".to_owned()),
        ..Package::new("release", "tether")
    });
    bill.relate("SPDXRef-DOCUMENT", "DESCRIBES", &release);
    let mut image = |name: &str, purpose| {
        let made = Package { primary_package_purpose: Some(purpose), ..Package::new(&format!("image-{name}"), name) };
        let made = made.file(name, facts.digest(name));
        (bill.add(made.clone()), made.id).0
    };
    let images = [image(super::BOOTSTRAP, "ARCHIVE"), image(super::APPLIANCE, "ARCHIVE")];
    let initramfs = image(super::INITRAMFS, "ARCHIVE");
    let kernel = kernel(&mut bill, facts);
    for one in images.iter().chain([&initramfs, &kernel]) {
        bill.relate(&release, "CONTAINS", one);
    }
    let programs: Vec<String> = facts.programs.iter().map(|program| bill.program(program, facts)).collect();
    for (image, initramfs) in [(&images[0], &initramfs), (&images[1], &programs[1])] {
        bill.relate(image, "CONTAINS", &kernel);
        bill.relate(image, "CONTAINS", initramfs);
    }
    bill.relate(&images[1], "CONTAINS", &programs[2]);
    bill.relate(&initramfs, "CONTAINS", &programs[0]);
    for loader in &facts.loaders {
        bill.found(loader, &images);
    }
    bill.found(&facts.authorities, &images[1..]);
    bill.finish(facts)
}

fn kernel(bill: &mut Bill, facts: &Facts) -> String {
    let made = Package {
        version_info: facts.kernel.release.clone(),
        license_declared: KERNEL.to_owned(),
        primary_package_purpose: Some("OPERATING-SYSTEM"),
        ..Package::new("image-kernel", "linux")
    };
    let made = bill.add(made.file(super::KERNEL, facts.digest(super::KERNEL)));
    match &facts.kernel.built {
        Some(built) => {
            // What follows a dash was added by the configuration.
            let version = facts.kernel.release.as_deref().and_then(|release| release.split('-').next());
            let source = Package {
                version_info: version.map(str::to_owned),
                download_location: origin::pinned(&built.source_sha256).unwrap_or(NOASSERTION),
                license_declared: KERNEL.to_owned(),
                primary_package_purpose: Some("SOURCE"),
                comment: Some(format!("compiled by {}", built.compiler)),
                checksums: vec![Checksum::sha256(&built.source_sha256)],
                ..Package::new("kernel-source", "linux")
            };
            let source = bill.add(source);
            bill.relate(&made, "GENERATED_FROM", &source);
        }
        None => bill.relate(&made, "GENERATED_FROM", NOASSERTION),
    }
    made
}

/// Packages and what they have to do with each other.
#[derive(Default)]
struct Bill {
    packages: Vec<Package>,
    relationships: Vec<Relationship>,
}

impl Bill {
    /// Adds a package unless it is there already; gives its identifier.
    fn add(&mut self, package: Package) -> String {
        let id = package.id.clone();
        if self.packages.iter().all(|other| other.id != id) {
            self.packages.push(package);
        }
        id
    }

    fn relate(&mut self, from: &str, kind: &'static str, to: &str) {
        let (element, related) = (from.to_owned(), to.to_owned());
        self.relationships.push(Relationship { element, kind, related });
    }

    fn program(&mut self, program: &Program, facts: &Facts) -> String {
        let made = Package {
            version_info: program.crates.as_ref().map(|crates| crates.itself.version.clone()),
            license_declared: OURS.to_owned(),
            primary_package_purpose: Some("APPLICATION"),
            ..Package::new(&format!("program-{}", program.name), program.name)
        };
        let id = self.add(made.file(program.name, &program.sha256));
        let Some(crates) = &program.crates else {
            self.relate(&id, "STATIC_LINK", NOASSERTION);
            return id;
        };
        for one in &crates.linked {
            let one = self.add(library(one));
            self.relate(&id, "STATIC_LINK", &one);
        }
        for one in &crates.built_with {
            let one = self.add(library(one));
            self.relate(&one, "BUILD_DEPENDENCY_OF", &id);
        }
        // Both come with the compiler, and Cargo does not know them.
        let std = Package {
            version_info: facts.toolchain.as_deref().and_then(|said| said.split_whitespace().nth(1)).map(str::to_owned),
            license_declared: "MIT OR Apache-2.0".to_owned(),
            ..Package::new("rust-std", "rust-std")
        };
        let musl = Package { license_declared: "MIT".to_owned(), ..Package::new("musl", "musl") };
        for one in [std, musl] {
            let one = self.add(Package { primary_package_purpose: Some("LIBRARY"), ..one });
            self.relate(&id, "STATIC_LINK", &one);
        }
        id
    }

    /// What is of a package, and in all these images.
    fn found(&mut self, found: &Found, images: &[String]) {
        let installed = found.installed.as_ref();
        let package = Package {
            version_info: installed.map(|installed| installed.version.clone()),
            license_declared: found.licence.to_owned(),
            external_refs: installed
                .map(|installed| Reference::purl(installed.purl(found.package)))
                .into_iter()
                .collect(),
            ..Package::new(&format!("{}-{}", found.part, found.package), found.package)
        };
        let package = self.add(package);
        for (name, sha256) in &found.files {
            let file = Package {
                license_declared: found.licence.to_owned(),
                primary_package_purpose: Some("FILE"),
                ..Package::new(&format!("{}-file-{name}", found.part), name)
            };
            let file = self.add(file.file(name, sha256));
            self.relate(&package, "CONTAINS", &file);
            for image in images {
                self.relate(image, "CONTAINS", &file);
            }
        }
    }

    fn finish(self, facts: &Facts) -> Vec<u8> {
        let Bill { packages, relationships } = self;
        let mut document = Document {
            spdx_version: "SPDX-2.3",
            data_license: "CC0-1.0",
            id: "SPDXRef-DOCUMENT",
            name: concat!("tether-", env!("CARGO_PKG_VERSION")),
            document_namespace: String::new(),
            creation_info: CreationInfo {
                created: date(facts.time),
                creators: [concat!("Tool: iso-builder-", env!("CARGO_PKG_VERSION"))],
            },
            packages,
            relationships,
        };
        // It must be unique to the document, and the same each time: so it follows from all the rest.
        let rest = digest::bytes(&super::json(&document));
        document.document_namespace = format!("https://spdx.org/spdxdocs/{}-{rest}", document.name);
        super::json(&document)
    }
}

fn library(one: &Crate) -> Package {
    let Crate { name, version, licence, checksum } = one;
    Package {
        version_info: Some(version.clone()),
        license_declared: licence.clone().unwrap_or_else(|| NOASSERTION.to_owned()),
        primary_package_purpose: Some("LIBRARY"),
        checksums: checksum.iter().map(|sha256| Checksum::sha256(sha256)).collect(),
        external_refs: checksum
            .iter()
            .map(|_| Reference::purl(format!("pkg:cargo/{name}@{}", version.replace('+', "%2B"))))
            .collect(),
        ..Package::new(&format!("crate-{name}-{version}"), name)
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Document {
    spdx_version: &'static str,
    data_license: &'static str,
    #[serde(rename = "SPDXID")]
    id: &'static str,
    name: &'static str,
    document_namespace: String,
    creation_info: CreationInfo,
    packages: Vec<Package>,
    relationships: Vec<Relationship>,
}

#[derive(Serialize)]
struct CreationInfo {
    created: String,
    creators: [&'static str; 1],
}

#[derive(Clone, Serialize)]
#[serde(rename_all = "camelCase")]
struct Package {
    name: String,
    #[serde(rename = "SPDXID")]
    id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    version_info: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    package_file_name: Option<String>,
    download_location: &'static str,
    files_analyzed: bool,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    checksums: Vec<Checksum>,
    license_concluded: &'static str,
    license_declared: String,
    copyright_text: &'static str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    external_refs: Vec<Reference>,
    #[serde(skip_serializing_if = "Option::is_none")]
    primary_package_purpose: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    comment: Option<String>,
}

impl Package {
    /// A package of which nothing but the name is known. `id` becomes its identifier, in which only letters, digits, dots and dashes are allowed.
    fn new(id: &str, name: &str) -> Package {
        let letter = |c: char| if c.is_ascii_alphanumeric() || c == '-' { c } else { '.' };
        Package {
            name: name.to_owned(),
            id: format!("SPDXRef-{}", id.chars().map(letter).collect::<String>()),
            version_info: None,
            package_file_name: None,
            download_location: NOASSERTION,
            files_analyzed: false,
            checksums: Vec::new(),
            license_concluded: NOASSERTION,
            license_declared: NOASSERTION.to_owned(),
            copyright_text: NOASSERTION,
            external_refs: Vec::new(),
            primary_package_purpose: None,
            comment: None,
        }
    }

    /// The package is one file.
    fn file(mut self, name: &str, sha256: &str) -> Package {
        self.package_file_name = Some(format!("./{name}"));
        self.checksums.push(Checksum::sha256(sha256));
        self
    }
}

#[derive(Clone, Serialize)]
#[serde(rename_all = "camelCase")]
struct Checksum {
    algorithm: &'static str,
    checksum_value: String,
}

impl Checksum {
    fn sha256(digest: &str) -> Checksum {
        Checksum { algorithm: "SHA256", checksum_value: digest.to_owned() }
    }
}

#[derive(Clone, Serialize)]
#[serde(rename_all = "camelCase")]
struct Reference {
    reference_category: &'static str,
    reference_type: &'static str,
    reference_locator: String,
}

impl Reference {
    fn purl(locator: String) -> Reference {
        Reference { reference_category: "PACKAGE-MANAGER", reference_type: "purl", reference_locator: locator }
    }
}

#[derive(Serialize)]
struct Relationship {
    #[serde(rename = "spdxElementId")]
    element: String,
    #[serde(rename = "relationshipType")]
    kind: &'static str,
    #[serde(rename = "relatedSpdxElement")]
    related: String,
}

const NOASSERTION: &str = "NOASSERTION";
const OURS: &str = env!("CARGO_PKG_LICENSE");
/// What the kernel's COPYING says; the note lets programs call it.
const KERNEL: &str = "GPL-2.0-only WITH Linux-syscall-note";
