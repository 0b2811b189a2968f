//! What may be put into an initramfs besides the program: files and folders, and why no modules.

use std::path::PathBuf;

use clap::Args;
use iso_builder::recipe::extra::Extra;

#[derive(Debug, Args)]
pub(crate) struct Additions {
    /// Put this file or folder in the initramfs, as in `./tool:/bin/tool`; for an init of your own, since tether reads none
    #[arg(long, value_name = "FILE:/PATH")]
    add: Vec<Extra>,
    /// Answers whoever asks for it.
    #[arg(long, value_name = "FILE.ko", hide = true)]
    module: Vec<PathBuf>,
}

impl Additions {
    pub(crate) fn checked(self) -> anyhow::Result<Vec<Extra>> {
        if let Some(module) = self.module.first() {
            anyhow::bail!(
                "{}: modules cannot be loaded: our kernel is built without (CONFIG_MODULES), and PID 1 loads none of any kernel. Build the driver in: \
                 `iso-builder kernel --fragment ./my.config -o FILE`, and `--kernel FILE` here",
                module.display()
            );
        }
        Ok(self.add)
    }
}
