//! The appliance's certificates and keys as files in memory, for programs that take them by name. Only root can read them, and no disk ever has them.

use std::fs::{self, DirBuilder, File};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use wire::appliance::ApplianceSpec;

pub(crate) const CERTIFICATE: &str = "cert.pem";
pub(crate) const KEY: &str = "key.pem";
pub(crate) const CLIENTS: &str = "ca.pem";
pub(crate) const MASTER_KEY: &str = "master.key";

/// Why a secret has no file.
#[derive(Debug, thiserror::Error)]
#[error("cannot write {path}")]
pub(crate) struct SecretError {
    path: PathBuf,
    source: io::Error,
}

/// Writes what the spec has into `dir`, which is made. A file that is there is replaced as a whole.
pub(crate) fn write(spec: &ApplianceSpec, dir: &Path) -> Result<(), SecretError> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| SecretError { path, source }
    };
    DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(failed(dir))?;
    let tls = spec.docker.as_ref().and_then(|docker| docker.tls.as_ref());
    let master = spec.links.key.as_ref().map(|key| format!("{}\n", key.to_hex()));
    let files = [
        (CERTIFICATE, tls.map(|tls| tls.certificate.text())),
        (KEY, tls.map(|tls| tls.key.text())),
        (CLIENTS, tls.and_then(|tls| tls.clients.as_ref()).map(wire::appliance::Pem::text)),
        (MASTER_KEY, master.as_deref()),
    ];
    for (name, text) in files {
        let Some(text) = text else { continue };
        let path = dir.join(name);
        replace(&path, text).map_err(failed(&path))?;
    }
    Ok(())
}

fn replace(path: &Path, text: &str) -> io::Result<()> {
    let new = path.with_extension("new");
    match fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = File::options().write(true).create_new(true).mode(0o600).open(&new)?;
    file.write_all(text.as_bytes())?;
    fs::rename(&new, path)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use wire::appliance;
    use wire::vmx::Dictionary;

    use super::*;

    #[test]
    fn only_root_can_read_them() {
        let dir = std::env::temp_dir().join(format!("appliance-secrets-{}", std::process::id()));
        let _old = fs::remove_dir_all(&dir);
        write(&ApplianceSpec::default(), &dir).unwrap();
        assert_eq!(fs::read_dir(&dir).unwrap().count(), 0);
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
        assert_eq!(mode(&dir), 0o700);
        let mut keys = Dictionary::default();
        let pem = |label: &str| format!("-----BEGIN {label}-----\nBgcI\n-----END {label}-----\n");
        let master = "a7".repeat(32);
        for (key, value) in [
            ("docker/tls/cert", pem("CERTIFICATE")),
            ("docker/tls/key", pem("PRIVATE KEY")),
            ("docker/tls/verify", "false".into()),
            ("link/key", master.clone()),
        ] {
            keys.set(&format!("guestinfo.vice./init/{key}"), value);
        }
        let spec = appliance::read(&keys).unwrap();
        // a second time, over what a service that was killed has left
        fs::write(dir.join("key.new"), "half").unwrap();
        for _ in 0..2 {
            write(&spec, &dir).unwrap();
        }
        let mut names: Vec<_> = fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, [CERTIFICATE, KEY, MASTER_KEY]);
        for name in [CERTIFICATE, KEY, MASTER_KEY] {
            assert_eq!(mode(&dir.join(name)), 0o600, "{name}");
        }
        assert_eq!(fs::read_to_string(dir.join(KEY)).unwrap(), pem("PRIVATE KEY"));
        assert_eq!(fs::read_to_string(dir.join(MASTER_KEY)).unwrap(), format!("{master}\n"));
        fs::remove_dir_all(&dir).unwrap();
    }
}
