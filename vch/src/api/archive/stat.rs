//! What lies at a path, in the header that docker's clients read before they copy. Without it they copy nothing.

use axum::http::{HeaderName, HeaderValue};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;
use wire::message::PathInfo;

use super::super::error::ApiError;
use crate::timestamp;

/// Its name.
pub(super) const PATH_STAT: HeaderName = HeaderName::from_static("x-docker-container-path-stat");

/// Docker Engine API, `ContainerPathStat`.
#[derive(Serialize)]
struct PathStat<'a> {
    name: &'a str,
    size: u64,
    mode: u32,
    mtime: String,
    #[serde(rename = "linkTarget")]
    link_target: &'a str,
}

/// The header's value: JSON in base64.
pub(super) fn header(info: &PathInfo) -> Result<HeaderValue, ApiError> {
    let stat = PathStat {
        name: &info.name,
        size: info.size,
        mode: go_mode(info.mode),
        // no file is from before 1970 but by mistake
        mtime: timestamp::format(u64::try_from(info.mtime_ns).unwrap_or_default()),
        link_target: &info.target,
    };
    let text = serde_json::to_vec(&stat).map_err(|error| ApiError::internal(format!("cannot write JSON: {error}")))?;
    HeaderValue::try_from(STANDARD.encode(text)).map_err(|error| ApiError::internal(error.to_string()))
}

/// A mode as Go has it (`os.FileMode`), of one as Linux has it (inode(7)): the bits of types and of set-id are elsewhere.
fn go_mode(mode: u32) -> u32 {
    let kind = match mode & 0o170_000 {
        0o040_000 => 1 << 31,
        0o120_000 => 1 << 27,
        0o060_000 => 1 << 26,
        0o020_000 => 1 << 26 | 1 << 21,
        0o010_000 => 1 << 25,
        0o140_000 => 1 << 24,
        _ => 0,
    };
    let special = [(0o4000, 1 << 23), (0o2000, 1 << 22), (0o1000, 1 << 20)];
    let special: u32 = special.iter().filter(|(linux, _)| mode & linux != 0).map(|(_, go)| go).sum();
    kind | special | mode & 0o777
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trap_17_the_mode_is_gos() {
        // of a genuine daemon: /tmp, and /etc/hosts
        assert_eq!(go_mode(0o041_777), 2_148_532_735);
        assert_eq!(go_mode(0o100_644), 420);
        let check = |linux, go| assert_eq!(go_mode(linux), go, "{linux:o}");
        check(0o120_777, 1 << 27 | 0o777);
        check(0o104_755, 1 << 23 | 0o755);
        check(0o102_755, 1 << 22 | 0o755);
        check(0o020_666, 1 << 26 | 1 << 21 | 0o666);
        check(0o060_660, 1 << 26 | 0o660);
        check(0o010_600, 1 << 25 | 0o600);
        check(0o140_600, 1 << 24 | 0o600);
    }

    #[test]
    fn trap_17_the_header_is_json_in_base64() {
        let info = PathInfo {
            name: "hosts".into(),
            size: 172,
            mode: 0o100_644,
            mtime_ns: 1_795_219_048_590_235_578,
            target: String::new(),
        };
        // as a genuine daemon wrote it
        let golden = "eyJuYW1lIjoiaG9zdHMiLCJzaXplIjoxNzIsIm1vZGUiOjQyMCwibXRpbWUiOiIyMDI2LTExLTIwVDIzOjU3OjI4LjU5MDIzNTU3OFoiLCJsaW5rVGFyZ2V0IjoiIn0=";
        assert_eq!(header(&info).unwrap(), golden);
    }
}
