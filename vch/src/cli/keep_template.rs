//! What vch types itself for `vch keep-template`; a user does not see it.

use std::path::PathBuf;

use clap::Args;

/// Keep a template, whose state is standard input and whose memory is standard output.
#[derive(Debug, Clone, Args)]
pub struct KeepTemplateArgs {
    /// The socket at which it is handed out
    pub socket: PathBuf,

    /// What is known of it, as JSON
    #[arg(long, env = "VCH_TEMPLATE_RECORD", hide_env_values = true)]
    pub record: String,

    /// How many seconds it is kept when nobody takes it; 0 for ever
    #[arg(long, env = "VCH_TEMPLATE_IDLE", default_value_t = 600)]
    pub idle: u64,
}
