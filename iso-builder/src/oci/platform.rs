//! Which images this host can run.

use std::fmt;

use super::document::Platform;

impl Platform {
    /// linux/amd64 in any variant. A platform that is not told is taken for it, as Docker does.
    pub(super) fn fits_this_host(&self) -> bool {
        matches!(self.os.as_str(), "" | "linux") && matches!(self.architecture.as_str(), "" | "amd64" | "x86_64")
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        match self.variant.as_deref() {
            None | Some("") => Ok(()),
            Some(variant) => write!(f, "/{variant}"),
        }
    }
}
