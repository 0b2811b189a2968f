//! Images from registries. A login comes with each pull, reaches the one registry that it is for, and is kept nowhere.

use std::io::ErrorKind;
use std::ops::ControlFlow;

use base64::Engine as _;
use base64::alphabet::URL_SAFE;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use iso_builder::content::document::Platform;
use iso_builder::oci::{self, Digest};
use iso_builder::registry::{self, Coming, Credentials, Name, Settings, Version};
use serde::Deserialize;

use super::bring::New;
use super::{ImageStore, familiar, repository};

/// What came of a pull.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Pulled {
    pub(crate) id: String,
    /// As docker shows it.
    pub(crate) name: String,
    pub(crate) digest: Digest,
    /// The name had led to that here already.
    pub(crate) was_here: bool,
}

/// Why an image does not come from its registry.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PullError {
    #[error(transparent)]
    Registry(#[from] registry::Error),
    #[error("{0:#}")]
    Failed(#[from] anyhow::Error),
}

/// How registries are reached: as this process's environment says, and with this login alone.
pub(crate) fn settings(credentials: Credentials) -> Result<Settings, String> {
    let mut settings = Settings::of_user(&|name| std::env::var_os(name))?;
    settings.credentials = credentials;
    Ok(settings)
}

/// The login in a client's `X-Registry-Auth`, for the registry of that name; one that says nothing is a guest's.
pub(crate) fn credentials(header: Option<&str>, host: &str) -> Result<Credentials, String> {
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct Login {
        username: String,
        password: String,
        auth: String,
        identitytoken: String,
        registrytoken: String,
    }
    let malformed = || "X-Registry-Auth is no login: it is JSON in base64url".to_owned();
    let Some(header) = header.filter(|header| !header.is_empty()) else { return Ok(Credentials::default()) };
    let text = BASE64.decode(header.trim()).map_err(|_| malformed())?;
    // serde's words may repeat a secret
    let login: Login = serde_json::from_slice(&text).map_err(|_| malformed())?;
    if !login.identitytoken.is_empty() {
        return Ok(Credentials::identity(host, &login.identitytoken));
    }
    if !login.registrytoken.is_empty() {
        return Err(
            "a registry token alone is no login that this host takes: docker login leaves one that it does".to_owned()
        );
    }
    if !login.username.is_empty() {
        return Ok(Credentials::password(host, &login.username, &login.password));
    }
    if !login.auth.is_empty() {
        let pair = base64::engine::general_purpose::STANDARD.decode(&login.auth).map_err(|_| malformed())?;
        let pair = String::from_utf8(pair).map_err(|_| malformed())?;
        let (user, password) = pair.split_once(':').ok_or_else(malformed)?;
        return Ok(Credentials::password(host, user, password));
    }
    Ok(Credentials::default())
}

impl ImageStore {
    /// Brings the image that `name` means at its registry now. It is given up when `tell` says so. It blocks.
    pub(crate) fn pull(
        &self,
        name: &Name,
        settings: &Settings,
        tell: &mut dyn FnMut(&[Coming]) -> ControlFlow<()>,
    ) -> Result<Pulled, PullError> {
        let pulled = self.holding(|| {
            let fetched = registry::fetch(name, &Platform::this_host(), &self.content, settings, tell)?;
            let image =
                oci::open_manifest(self.content.dir(), &fetched.manifest.digest).map_err(anyhow::Error::from)?;
            let full = name.to_string();
            let by_digest = format!("{}@{}", repository(&full), fetched.top.digest);
            let before = self.find(&full).ok();
            let id = fetched.config.digest;
            let was_here = before
                .is_some_and(|before| before.id == id.to_string() && before.digests.contains(&familiar(&by_digest)));
            if !was_here {
                let sizes = self.make_ready(&image, Some(&full))?;
                let mut names = vec![by_digest];
                names.extend(matches!(name.version(), Version::Tag(_)).then_some(full.clone()));
                let manifest = fetched.manifest;
                self.enter(&[New { id, manifest, sizes, names, parent: None }])?;
            }
            Ok::<_, PullError>(Pulled {
                id: id.to_string(),
                name: familiar(&full),
                digest: fetched.top.digest,
                was_here,
            })
        });
        if pulled.as_ref().is_err_and(is_full) {
            // what there is of a layer would be taken up again, and takes the room that it lacked
            self.content.drop_partials().map_err(anyhow::Error::from)?;
        }
        self.collect()?;
        pulled
    }

    /// What a name leads to at its registry. It blocks.
    pub(crate) fn look(&self, name: &Name, settings: &Settings) -> Result<registry::Found, PullError> {
        let found = self.holding(|| Ok::<_, PullError>(registry::look(name, &self.content, settings)?));
        self.collect()?;
        found
    }
}

fn is_full(error: &PullError) -> bool {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = cause {
        if error.downcast_ref::<std::io::Error>().is_some_and(|error| error.kind() == ErrorKind::StorageFull) {
            return true;
        }
        cause = error.source();
    }
    false
}

/// With padding, as docker writes it, or without.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &URL_SAFE,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_login_is_read_and_no_error_repeats_it() {
        let header = |text: &str| BASE64.encode(text);
        let shown = |text: &str| credentials(Some(text), "x.io").map(|found| format!("{found:?}"));
        for login in [
            r#"{"username":"joe","password":"sécret?>"}"#,
            r#"{"identitytoken":"secret"}"#,
            r#"{"auth":"am9lOnNlY3JldA=="}"#,
            "{}",
        ] {
            let found = shown(&header(login)).unwrap();
            assert!(!found.contains("secret"), "{found}");
            assert!(shown(header(login).trim_end_matches('=')).is_ok());
        }
        for bad in
            ["secret!", &header("secret"), &header(r#"{"auth":"secret"}"#), &header(r#"{"username":["secret"]}"#)]
        {
            let error = shown(bad).unwrap_err();
            assert!(!error.contains("secret"), "{error}");
        }
    }
}
