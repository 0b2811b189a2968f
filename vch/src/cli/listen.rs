//! What was typed about where clients connect, in dockerd's words: `--host` and the `--tls` options.

use std::path::{Path, PathBuf};

use clap::Args;

use crate::listen::Host;

/// Where clients of the Docker API connect, and who they have to be.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Docker API")]
pub struct ListenArgs {
    /// Where docker clients connect: unix://PATH, tcp://ADDRESS:PORT, or fd:// for sockets that systemd passes; may be given more than once
    ///
    /// Without `:PORT` it is 2375, or 2376 with TLS. Who reaches a TCP address without --tlsverify can do with the containers whatever docker can.
    #[arg(short = 'H', long, value_name = "HOST")]
    pub host: Vec<Host>,

    /// Speak TLS on TCP; --tlsverify implies it
    #[arg(long)]
    pub tls: bool,

    /// Speak TLS on TCP, and let only clients in that have a certificate of the CA
    #[arg(long)]
    pub tlsverify: bool,

    /// The CA whose clients are let in, in PEM [default: certs/ca.pem in the state directory]
    #[arg(long, value_name = "FILE")]
    pub tlscacert: Option<PathBuf>,

    /// The host's certificate, in PEM, with those between it and its CA behind it [default: certs/server-cert.pem in the state directory]
    #[arg(long, value_name = "FILE")]
    pub tlscert: Option<PathBuf>,

    /// The key of that certificate, in PEM [default: certs/server-key.pem in the state directory]
    #[arg(long, value_name = "FILE")]
    pub tlskey: Option<PathBuf>,
}

impl ListenArgs {
    pub(crate) fn uses_tls(&self) -> bool {
        self.tls || self.tlsverify
    }

    /// The three files, which lie in that directory unless they are named: the CA, the certificate and its key.
    pub(crate) fn files(&self, dir: &Path) -> [PathBuf; 3] {
        let names = [(&self.tlscacert, "ca.pem"), (&self.tlscert, "server-cert.pem"), (&self.tlskey, "server-key.pem")];
        names.map(|(named, default)| named.clone().unwrap_or_else(|| dir.join(default)))
    }
}
