//! How a container's machine begins: as a clone where that is wished for and can be had, else by booting.
//!
//! Whatever is wrong with a template, or with what was made of it, is told in a sentence, and the machine boots; only who wants nothing but clones gets an error. How
//! a machine goes on where another was saved: [`crate::vm::fork`].

use anyhow::Result;

use super::Maker;
use crate::cli::CloneWish;
use crate::containers::Container;
use crate::hypervisor::Powered;
use crate::serve::say;
use crate::vm::{Begins, Machine};

impl Maker {
    /// Powers a machine on.
    pub(super) async fn begin(&self, container: &Container, machine: Machine) -> Result<Powered> {
        let dir = container.dir();
        if self.clone != CloneWish::Never {
            let clone = Machine { begins: Begins::Clone, ..machine.clone() };
            match self.hypervisor.power_on(dir, &clone).await {
                Ok(powered) => return Ok(powered),
                Err(error) if self.clone == CloneWish::Always => return Err(error.context("--clone always")),
                Err(error) => {
                    say(&format!("{}: its machine boots, as it cannot be cloned: {error:#}", container.name()));
                }
            }
        }
        self.hypervisor.power_on(dir, &machine).await
    }
}
