//! How the images came to be: an in-toto statement v1 with SLSA's provenance v1 as its predicate.
//!
//! It decides what counts as a parameter (what somebody chose) and as a dependency (what was fetched or built before). It is not signed: whoever builds in public has
//! the builder sign one of its own, and the two can be compared. docs/artifacts.md is what the build type names.

use std::collections::BTreeMap;

use serde::Serialize;

use super::{Facts, Subject};

/// The statement about `subjects` as JSON.
pub(super) fn statement(facts: &Facts, subjects: &[Subject]) -> Vec<u8> {
    let statement = Statement {
        kind: "https://in-toto.io/Statement/v1",
        subject: subjects.iter().map(|subject| Resource::file(&subject.name, &subject.sha256)).collect(),
        predicate_type: "https://slsa.dev/provenance/v1",
        predicate: Predicate {
            build_definition: BuildDefinition {
                build_type: BUILD_TYPE,
                external_parameters: ExternalParameters { source_date_epoch: facts.time.secs },
                internal_parameters: InternalParameters {
                    rust: facts.toolchain.as_deref(),
                    kernel_compiler: facts.kernel.built.as_ref().map(|built| built.compiler.as_str()),
                },
                resolved_dependencies: dependencies(facts),
            },
            run_details: RunDetails {
                builder: Builder {
                    id: facts.builder.as_deref().unwrap_or(BUILDER),
                    version: BTreeMap::from([("iso-builder", super::VERSION)]),
                },
            },
        },
    };
    super::json(&statement)
}

fn dependencies(facts: &Facts) -> Vec<Resource> {
    let mut found = Vec::new();
    if let Some(commit) = &facts.commit {
        let digest = BTreeMap::from([("gitCommit", commit.clone())]);
        found.push(Resource { name: "tether source".to_owned(), uri: None, digest });
    }
    found.extend(facts.lock.as_ref().map(|lock| Resource::file("Cargo.lock", lock)));
    if let Some(built) = &facts.kernel.built {
        found.push(Resource::file("linux source", &built.source_sha256));
        found.push(Resource::file("linux .config", &built.config_sha256));
    }
    found.push(Resource::file("bzImage", facts.digest(super::KERNEL)));
    found.extend(facts.programs.iter().map(|program| Resource::file(program.name, &program.sha256)));
    for part in facts.loaders.iter().chain([&facts.authorities]) {
        let uri = part.installed.as_ref().map(|installed| installed.purl(part.package));
        found.extend(
            part.files.iter().map(|(name, sha256)| Resource { uri: uri.clone(), ..Resource::file(name, sha256) }),
        );
    }
    found
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Statement<'a> {
    #[serde(rename = "_type")]
    kind: &'static str,
    subject: Vec<Resource>,
    predicate_type: &'static str,
    predicate: Predicate<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Predicate<'a> {
    build_definition: BuildDefinition<'a>,
    run_details: RunDetails<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct BuildDefinition<'a> {
    build_type: &'static str,
    external_parameters: ExternalParameters,
    internal_parameters: InternalParameters<'a>,
    resolved_dependencies: Vec<Resource>,
}

#[derive(Serialize)]
struct ExternalParameters {
    #[serde(rename = "SOURCE_DATE_EPOCH")]
    source_date_epoch: i64,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct InternalParameters<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    rust: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    kernel_compiler: Option<&'a str>,
}

#[derive(Serialize)]
struct RunDetails<'a> {
    builder: Builder<'a>,
}

#[derive(Serialize)]
struct Builder<'a> {
    id: &'a str,
    version: BTreeMap<&'static str, &'static str>,
}

/// in-toto's ResourceDescriptor.
#[derive(Serialize)]
struct Resource {
    name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    uri: Option<String>,
    digest: BTreeMap<&'static str, String>,
}

impl Resource {
    fn file(name: &str, sha256: &str) -> Resource {
        Resource { name: name.to_owned(), uri: None, digest: BTreeMap::from([("sha256", sha256.to_owned())]) }
    }
}

/// Described in docs/artifacts.md. We own no domain; this one can be nobody's (RFC 2606).
const BUILD_TYPE: &str = "https://tether.invalid/build/images/v1";
/// Whoever called iso-builder and did not say who they are.
const BUILDER: &str = "https://tether.invalid/builder/unnamed/v1";
