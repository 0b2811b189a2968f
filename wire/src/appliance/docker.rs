//! The keys of the Docker API: its port, and who may use it. Whoever may use it owns every container, so nobody is let in by what was left out.

use super::Pem;
use super::port_number;
use crate::guestinfo::SpecError;
use crate::guestinfo::node::Node;

/// The Docker API over TCP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Docker {
    /// Never 0.
    pub port: u16,
    /// None: everybody who reaches the port may use it.
    pub tls: Option<Tls>,
}

/// Who the appliance is to its clients, and who they must be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tls {
    /// The appliance's certificate, and those that lead to its authority.
    pub certificate: Pem,
    /// The certificate's private key.
    pub key: Pem,
    /// The authorities of clients' certificates; none: clients need none.
    pub clients: Option<Pem>,
}

/// Docker's ports with TLS and without: registered with IANA.
const TLS_PORT: u16 = 2376;
const PLAIN_PORT: u16 = 2375;

const KEYS: [&str; 3] = ["PRIVATE KEY", "EC PRIVATE KEY", "RSA PRIVATE KEY"];
const CERTIFICATES: [&str; 1] = ["CERTIFICATE"];

pub(super) fn read(root: &Node<'_>) -> Result<Option<Docker>, SpecError> {
    let insecure = root.flag("docker/insecure", false)?;
    let given =
        root.parsed("docker/port", "a port from 1 to 65535", |text| port_number(text).filter(|port| *port > 0))?;
    let tls = read_tls(root)?;
    match (&tls, insecure) {
        (Some(_), true) => {
            Err(root.invalid("docker/insecure", "true", "possible: docker/tls/cert says that the API is behind TLS"))
        }
        (Some(_), false) => Ok(Some(Docker { port: given.unwrap_or(TLS_PORT), tls })),
        (None, true) => Ok(Some(Docker { port: given.unwrap_or(PLAIN_PORT), tls: None })),
        (None, false) if given.is_some() => {
            Err(SpecError::Missing(format!("{0}docker/tls/cert, nor {0}docker/insecure = \"true\"", root.path)))
        }
        (None, false) => Ok(None),
    }
}

fn read_tls(root: &Node<'_>) -> Result<Option<Tls>, SpecError> {
    const CERTIFICATE: &str = "a certificate in PEM, or base64 of one";
    let certificates = |key: &str| root.parsed(key, CERTIFICATE, |text| Pem::read(text, &CERTIFICATES));
    let certificate = certificates("docker/tls/cert")?;
    let clients = certificates("docker/tls/ca")?;
    let key =
        root.parsed("docker/tls/key", "a private key in PEM without a pass phrase, or base64 of one", |text| {
            Pem::read(text, &KEYS)
        })?;
    let verify = root.flag("docker/tls/verify", true)?;
    match (certificate, key) {
        (Some(certificate), Some(key)) => match (verify, clients) {
            (true, None) => {
                let path = &root.path;
                Err(SpecError::Missing(format!("{path}docker/tls/ca, nor {path}docker/tls/verify = \"false\"")))
            }
            (true, clients) => Ok(Some(Tls { certificate, key, clients })),
            (false, _) => Ok(Some(Tls { certificate, key, clients: None })),
        },
        (None, None) if clients.is_none() => Ok(None),
        (None, _) => Err(root.missing("docker/tls/cert")),
        (Some(_), None) => Err(root.missing("docker/tls/key")),
    }
}
