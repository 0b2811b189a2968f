//! Images from registries: the client's half of the OCI distribution specification 1.1, over HTTP with TLS.
//!
//! What comes goes into the [`Store`], where `oci` reads it: a registry and what it sends are untrusted, so nothing counts before its digest is verified, nothing
//! is larger than was announced, and nothing may take for ever. Which registries, logins and mirrors there are is decided by [`Settings`].

mod challenge;
mod credentials;
mod error;
mod fetch;
mod http;
mod name;
mod pull;
mod retry;
mod session;
mod settings;
mod url;

pub use self::credentials::{CredentialError, Credentials};
pub use self::error::{Also, Error, Failed, Reason};
pub use self::name::{Name, NameError, Version};
pub use self::pull::{Coming, Fetched, Found, Progress, Pulled, fetch, knock, look, pull};
pub use self::settings::{Mirror, Settings};
use crate::content::Store;
use crate::content::document::Platform;
use crate::oci::Reference;

/// When an image is pulled that has a name in a registry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum When {
    /// Even if it is here: its name may lead to another image now.
    Always,
    /// If it is not here.
    #[default]
    Missing,
    Never,
}

/// Whatever it takes to have an image at hand.
#[derive(Clone, Debug)]
pub struct Source<'a> {
    pub store: &'a Store,
    pub settings: &'a Settings,
    pub when: When,
    pub platform: Platform,
    /// Seconds since 1970.
    pub now: u64,
}

impl Source<'_> {
    /// Turns what a user wrote into what `oci` opens: a file is one already, a name is looked for in the store, and pulled into it. `tell` hears of a pull.
    pub fn obtain(&self, asked: &Reference, tell: &mut dyn FnMut(&Name, Progress)) -> Result<Reference, Error> {
        let name = match asked.name() {
            None => return Ok(asked.clone()),
            Some(name) => name.map_err(|source| Error::Name { asked: asked.to_string(), source })?,
        };
        let here = match self.when {
            When::Always => None,
            When::Missing | When::Never => self.store.find(&name.to_string(), &self.platform)?,
        };
        match (here, self.when) {
            (Some(named), _) => self.store.touch(&named, self.now)?,
            (None, When::Never) => return Err(Error::NotHere { name }),
            (None, _) => {
                let tell = &mut |progress| tell(&name, progress);
                pull(&name, &self.platform, self.store, self.settings, self.now, tell)?;
            }
        }
        Ok(Reference::Oci { path: self.store.dir().to_owned(), tag: Some(name.to_string()) })
    }
}
