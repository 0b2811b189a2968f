//! `vch certs`: a CA, and what it issues for the host and for docker's clients, under the names of docker's documentation.
//!
//! Keys are EC P-256 and can be read by their owner alone. A file appears when it is whole, a key before its certificate; nothing is replaced that was not to
//! be, and a CA never. Only a CA that was made here issues here: its name follows from its key, and of its certificate nothing else is needed.

use std::fs::{self, Permissions};
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, bail};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PublicKeyData as _, date_time_ymd,
};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use tempfile::NamedTempFile;

use crate::cli::CertsArgs;
use crate::state;

const CA: [&str; 2] = ["ca-key.pem", "ca.pem"];
const SERVER: [&str; 2] = ["server-key.pem", "server-cert.pem"];
const CLIENT: [&str; 2] = ["key.pem", "cert.pem"];

const DAY: Duration = Duration::from_secs(86_400);
/// Clocks differ: what is made now is valid at once for one that is behind.
const BEFORE: Duration = DAY;
/// How long a CA is valid at least, in days.
const CA_DAYS: u32 = 3650;

/// Makes them; the result is the exit code.
pub fn run(args: &CertsArgs) -> Result<u8> {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).context("the clock is before 1970: set it")?;
    let made_ca = make(args, now)?;
    let dir = args.dir.display();
    if made_ca {
        println!("{dir}/ca.pem           the CA; {dir}/ca-key.pem is its key: who has it makes clients");
    } else {
        println!("{dir}/ca.pem           the CA, as it was");
    }
    println!("{dir}/server-cert.pem  for `vch serve`, known as {}", args.san.join(", "));
    println!("{dir}/cert.pem         for clients: give them ca.pem, cert.pem and key.pem");
    println!("valid for {} days", args.days);
    Ok(0)
}

/// Makes what is missing, and with `--force` what is not the CA anew; whether it made a CA.
fn make(args: &CertsArgs, now: Duration) -> Result<bool> {
    let dir = &args.dir;
    state::make_dir(dir)?;
    if !args.force {
        for name in SERVER.into_iter().chain(CLIENT) {
            if fs::symlink_metadata(dir.join(name)).is_ok() {
                bail!(
                    "{} is there already: name another directory, or replace it and its like with --force",
                    dir.join(name).display()
                );
            }
        }
    }
    let found = CA.map(|name| fs::symlink_metadata(dir.join(name)).is_ok());
    let made_ca = match found {
        [true, true] => false,
        [false, false] => true,
        [key, _] => {
            let [there, missing] = if key { CA } else { [CA[1], CA[0]] };
            let dir = dir.display();
            bail!(
                "{dir} holds {there} and no {missing}: a CA is both. Put {missing} back, or take {there} away for a new CA"
            )
        }
    };
    let key = if made_ca { new_key()? } else { ca_key(dir)? };
    let params = ca_params(&key, now, args.days);
    let ca = if made_ca {
        let certificate = params.self_signed(&key).context("cannot make the CA")?;
        Some((key.serialize_pem(), certificate.pem()))
    } else {
        None
    };
    let issuer = Issuer::new(params, key);
    let server = issue(&issuer, "vch", &args.san, ExtendedKeyUsagePurpose::ServerAuth, now, args.days)?;
    let client = issue(&issuer, "docker client", &[], ExtendedKeyUsagePurpose::ClientAuth, now, args.days)?;
    if let Some(ca) = ca {
        write(dir, CA, &ca, false)?;
    }
    write(dir, SERVER, &server, args.force)?;
    write(dir, CLIENT, &client, args.force)?;
    Ok(made_ca)
}

fn new_key() -> Result<KeyPair> {
    KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).context("cannot make a key")
}

/// The key of the CA in that directory, if that CA is one of ours.
fn ca_key(dir: &Path) -> Result<KeyPair> {
    let [key_path, path] = CA.map(|name| dir.join(name));
    let (shown, key_shown) = (path.display(), key_path.display());
    let text = fs::read_to_string(&key_path).with_context(|| format!("cannot read {key_shown}"))?;
    let key = KeyPair::from_pem(&text).with_context(|| format!("{key_shown} is no key that vch can use"))?;
    let text = fs::read(&path).with_context(|| format!("cannot read {shown}"))?;
    let certificate = CertificateDer::from_pem_slice(&text).with_context(|| format!("{shown} is no certificate"))?;
    let holds = |part: &[u8]| certificate.windows(part.len()).any(|window| window == part);
    if !holds(&key.subject_public_key_info()) {
        bail!("{key_shown} is not the key of {shown}: put the right one there, or take both away for a new CA");
    }
    if !holds(ca_name(&key).as_bytes()) {
        bail!(
            "{shown} was not made by `vch certs`: issue the certificates with the tools of that CA, or name another directory"
        );
    }
    Ok(key)
}

/// CAs of one name with different keys would be taken for each other.
fn ca_name(key: &KeyPair) -> String {
    format!("vch CA {}", &state::id_from(key.subject_public_key_info())[..16])
}

fn ca_params(key: &KeyPair, now: Duration, days: u32) -> CertificateParams {
    let mut params = dated(&ca_name(key), now, days.max(CA_DAYS));
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

fn issue(
    issuer: &Issuer<'_, KeyPair>,
    name: &str,
    san: &[String],
    usage: ExtendedKeyUsagePurpose,
    now: Duration,
    days: u32,
) -> Result<(String, String)> {
    let key = new_key()?;
    let mut params = dated(name, now, days);
    params.subject_alt_names =
        CertificateParams::new(san).context("--san is no address and no name")?.subject_alt_names;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![usage];
    params.use_authority_key_identifier_extension = true;
    let certificate = params.signed_by(&key, issuer).with_context(|| format!("cannot issue to {name:?}"))?;
    Ok((key.serialize_pem(), certificate.pem()))
}

/// Valid from now on; `now` since 1970.
fn dated(name: &str, now: Duration, days: u32) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    let epoch = date_time_ymd(1970, 1, 1);
    params.not_before = epoch + now.saturating_sub(BEFORE);
    params.not_after = epoch + now + DAY * days;
    params
}

/// A key, then its certificate. What is replaced is replaced in one step.
fn write(dir: &Path, names: [&str; 2], texts: &(String, String), replace: bool) -> Result<()> {
    for (name, text, mode) in [(names[0], &texts.0, 0o600), (names[1], &texts.1, 0o644)] {
        let path = dir.join(name);
        let written = NamedTempFile::new_in(dir).and_then(|mut file| {
            file.write_all(text.as_bytes())?;
            file.as_file().set_permissions(Permissions::from_mode(mode))?;
            file.as_file().sync_all()?;
            match replace {
                true => file.persist(&path)?,
                false => file.persist_noclobber(&path)?,
            };
            Ok(())
        });
        written.map_err(|error| match error.kind() {
            ErrorKind::AlreadyExists => anyhow::anyhow!("{} has just been made by somebody else", path.display()),
            _ => anyhow::anyhow!("cannot write {}: {error}", path.display()),
        })?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    const NOW: Duration = Duration::from_secs(1_800_000_000);

    fn args(dir: PathBuf, force: bool) -> CertsArgs {
        CertsArgs { dir, san: vec!["192.0.2.10".into(), "vch.example".into()], days: 30, force }
    }

    fn read(dir: &Path) -> Vec<String> {
        let names = [CA, SERVER, CLIENT].concat();
        names.iter().map(|name| fs::read_to_string(dir.join(name)).unwrap()).collect()
    }

    #[test]
    fn they_are_made_once_and_the_ca_stays() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("certs");
        assert!(make(&args(dir.clone(), false), NOW).unwrap());
        let first = read(&dir);
        for (name, mode) in CA.into_iter().chain(SERVER).chain(CLIENT).zip([0o600, 0o644].into_iter().cycle()) {
            assert_eq!(fs::metadata(dir.join(name)).unwrap().permissions().mode() & 0o777, mode, "{name}");
        }
        let error = make(&args(dir.clone(), false), NOW).unwrap_err().to_string();
        assert!(error.contains("server-key.pem is there already") && error.contains("--force"), "{error}");
        assert_eq!(read(&dir), first);
        assert!(!make(&args(dir.clone(), true), NOW).unwrap());
        let second = read(&dir);
        assert_eq!(second[..2], first[..2]);
        assert!(second[2..].iter().zip(&first[2..]).all(|(second, first)| second != first));
        // no leftovers
        assert_eq!(fs::read_dir(&dir).unwrap().count(), 6);
    }

    #[test]
    fn a_ca_that_is_not_whole_or_not_ours_issues_nothing() {
        let root = tempfile::tempdir().unwrap();
        let (dir, other) = (root.path().join("a"), root.path().join("b"));
        make(&args(dir.clone(), false), NOW).unwrap();
        make(&args(other.clone(), false), NOW).unwrap();
        let refused = |part: &str| {
            let error = make(&args(dir.clone(), true), NOW).unwrap_err().to_string();
            assert!(error.contains(part), "{error}");
        };
        fs::copy(other.join(CA[0]), dir.join(CA[0])).unwrap();
        refused("is not the key of");
        fs::remove_file(dir.join(CA[0])).unwrap();
        refused("holds ca.pem and no ca-key.pem");
        let key = new_key().unwrap();
        let mut params = ca_params(&key, NOW, 1);
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, "another CA");
        fs::write(dir.join(CA[0]), key.serialize_pem()).unwrap();
        fs::write(dir.join(CA[1]), params.self_signed(&key).unwrap().pem()).unwrap();
        refused("was not made by `vch certs`");
        fs::write(dir.join(CA[1]), "nonsense").unwrap();
        refused("is no certificate");
    }
}
