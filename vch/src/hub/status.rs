//! What is known of a guest at any time, for whoever watches.

use wire::link::{Closed, Counters};
use wire::message::Ready;
use wire::status::{Exit, Failure, Status};

/// What is known of a guest.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GuestStatus {
    pub pipe: PipeState,
    /// Drawn by the guest at each boot; known once it has proved the key.
    pub boot: Option<[u8; 16]>,
    /// What the guest said of its boot. A hub that was started later has not heard it.
    pub ready: Option<Ready>,
    pub main: MainState,
    /// Why the link is over for good, also when the process had ended before: its guest has booted again, say, and comes back to another hub.
    pub closed: Option<Closed>,
    /// What the guest told last about its machine.
    pub machine: Option<Status>,
    /// What the guest's kernel had said when something failed.
    pub kernel_log: Option<String>,
    /// How often the link was opened: once, and once after each cut.
    pub opened: u64,
    /// What came over the link and could not be used.
    pub counters: Counters,
}

/// The pipe under the link.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PipeState {
    /// There has been none.
    #[default]
    Awaited,
    /// It ended.
    Down,
    /// Whoever is at its other end has not yet proved the key.
    Unproved,
    Open,
}

/// How far the spec's process is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum MainState {
    /// The guest has not told yet.
    #[default]
    Booting,
    /// It is held until the host says `Start`.
    Waiting,
    Running {
        pid: u32,
    },
    Ended(Exit),
    /// The guest could not run it.
    Failed(Failure),
    /// The machine ended before the guest told how its process did.
    Lost(String),
    /// The link is over for good.
    Closed(Closed),
}

impl MainState {
    /// Nothing more will become of it.
    pub fn is_over(&self) -> bool {
        match self {
            MainState::Booting | MainState::Waiting | MainState::Running { .. } => false,
            MainState::Ended(_) | MainState::Failed(_) | MainState::Lost(_) | MainState::Closed(_) => true,
        }
    }
}
