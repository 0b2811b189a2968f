//! What was typed for `vch certs`.

use std::net::IpAddr;
use std::path::PathBuf;

use clap::Args;

/// Make certificates for `vch serve --tlsverify` and its docker clients.
///
/// In DIR come to lie, as docker's documentation names them: ca.pem and ca-key.pem, the CA; server-cert.pem and server-key.pem, for the host; cert.pem and
/// key.pem, for clients. A CA that is in DIR already issues the others anew with --force, so that clients that trust it still do.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Examples:
  vch certs ~/.local/state/tether/certs --san 192.0.2.10 --san vch.example
  vch serve --hypervisor none --link-listen tcp://0.0.0.0:8080 -H tcp://0.0.0.0:2376 --tlsverify
With ca.pem, cert.pem and key.pem in ~/.docker of a client:
  docker -H tcp://192.0.2.10:2376 --tlsverify ps
Anew, when they expire, and then a SIGHUP to serve:
  vch certs ~/.local/state/tether/certs --san 192.0.2.10 --san vch.example --force")]
pub struct CertsArgs {
    /// The directory, which is made if it does not exist
    pub dir: PathBuf,

    /// An address or a name by which clients reach the host; may be given more than once. *.example stands for all names right below
    #[arg(long, value_name = "IP|NAME", required = true, value_parser = san)]
    pub san: Vec<String>,

    /// How long the host's and the clients' certificate are valid, from now on; the CA is ten years, or as long
    #[arg(long, value_name = "N", default_value_t = 365, value_parser = clap::value_parser!(u32).range(1..=36_500))]
    pub days: u32,

    /// Replace certificates and keys that are there; the CA stays
    #[arg(long)]
    pub force: bool,
}

/// An address, or a name as RFC 1123 allows it, with a star for its first part where that is wanted.
fn san(text: &str) -> Result<String, String> {
    let plain = |part: &str| {
        let chars = part.chars().all(|char| char.is_ascii_alphanumeric() || "_-".contains(char));
        chars && (1..=63).contains(&part.len()) && !part.starts_with('-') && !part.ends_with('-')
    };
    let name = text.strip_prefix("*.").unwrap_or(text);
    let is_name =
        name.len() <= 253 && name.split('.').all(plain) && !name.chars().all(|char| "0123456789.".contains(char));
    match text.parse::<IpAddr>().is_ok() || is_name {
        true => Ok(text.to_owned()),
        false => Err("write an IP address, or a name as in vch.example".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_host_can_be_called() {
        for text in ["192.0.2.10", "::1", "localhost", "vch.example", "*.example", "a-b.c_d"] {
            assert!(san(text).is_ok(), "{text}");
        }
        for text in ["", "a b", "192.0.2", "192.0.2.256", "a..b", "*", "a.*.b", "-a", "tcp://a", "a:2376", "é"] {
            assert!(san(text).is_err(), "{text}");
        }
    }
}
