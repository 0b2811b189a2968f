//! What clients are shown and asked for by TLS: 1.2 and 1.3, HTTP/1.1 and no other protocol, and with `--tlsverify` a certificate of the CA.
//!
//! The files are read again when the host is told so, and then all of them are in use or none: connections that are open keep what they have.

use std::fs::File;
use std::io::{self, BufReader};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result, bail};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::version::{TLS12, TLS13};
use tokio_rustls::rustls::{RootCertStore, ServerConfig};

/// Where the certificates and keys lie, all in PEM.
#[derive(Clone, Debug)]
pub(crate) struct Files {
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
    /// Whose clients are let in; without it everybody is.
    pub(crate) ca: Option<PathBuf>,
}

/// The certificates in use.
#[derive(Debug)]
pub(crate) struct Certificates {
    files: Files,
    now: Mutex<Arc<ServerConfig>>,
}

impl Certificates {
    pub(crate) fn load(files: Files) -> Result<Certificates> {
        let now = Mutex::new(Arc::new(config(&files)?));
        Ok(Certificates { files, now })
    }

    /// Reads the files again. If one of them is not valid, what was in use stays in use.
    pub(crate) fn reload(&self) -> Result<()> {
        let new = Arc::new(config(&self.files)?);
        *self.now.lock().unwrap_or_else(PoisonError::into_inner) = new;
        Ok(())
    }

    pub(super) fn acceptor(&self) -> TlsAcceptor {
        self.now.lock().unwrap_or_else(PoisonError::into_inner).clone().into()
    }

    pub(super) fn verifies_clients(&self) -> bool {
        self.files.ca.is_some()
    }
}

fn config(files: &Files) -> Result<ServerConfig> {
    let provider = Arc::new(ring::default_provider());
    let chain = certificates(&files.certificate, "certificate", "--tlscert")?;
    let shown = files.key.display();
    let key = open(&files.key, "key", "--tlskey")?;
    let key = PrivateKeyDer::from_pem_reader(key).with_context(|| format!("{shown} holds no private key in PEM"))?;
    let builder = ServerConfig::builder_with_provider(provider.clone()).with_protocol_versions(&[&TLS13, &TLS12])?;
    let builder = match &files.ca {
        None => builder.with_no_client_auth(),
        Some(path) => {
            let mut roots = RootCertStore::empty();
            for certificate in certificates(path, "CA", "--tlscacert")? {
                roots.add(certificate).with_context(|| format!("{} is no CA's certificate", path.display()))?;
            }
            let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), provider).build();
            builder.with_client_cert_verifier(verifier.with_context(|| format!("cannot use {}", path.display()))?)
        }
    };
    let certificate = files.certificate.display();
    let mut config = builder
        .with_single_cert(chain, key)
        .with_context(|| format!("the certificate {certificate} and the key {shown} do not belong together"))?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

/// All certificates of a file, of which there is at least one.
fn certificates(path: &Path, what: &str, option: &str) -> Result<Vec<CertificateDer<'static>>> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_reader_iter(open(path, what, option)?).collect();
    let shown = path.display();
    let found = found.with_context(|| format!("{shown} is not valid PEM"))?;
    if found.is_empty() {
        bail!("{shown} holds no certificate in PEM");
    }
    Ok(found)
}

fn open(path: &Path, what: &str, option: &str) -> Result<BufReader<File>> {
    let file = File::open(path).map_err(|error| {
        let way_out = match error.kind() {
            io::ErrorKind::NotFound => format!("name it with {option}, or make it with `vch certs`"),
            _ => "let vch read it".to_owned(),
        };
        anyhow::anyhow!("cannot read the {what} {}: {error}; {way_out}", path.display())
    })?;
    Ok(BufReader::new(file))
}
