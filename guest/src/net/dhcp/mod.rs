//! A DHCPv4 client: RFC 2131 and 2132, 3396 (long options), 3397 (search list), 3442 (routes).
//!
//! ```text
//! message   what is said: questions written, answers read          lease    what an answer gives, when it can be true
//! client    who says what when: a state machine without I/O        asker    the client on a card: packets and time
//! ```
//!
//! An address is not probed before it is used (RFC 2131, 4.4.1, would have it): it costs a second of each start, and the server has to have done it. So nothing
//! is ever declined.

mod asker;
mod client;
mod lease;
mod message;

pub use asker::Asker;
pub use client::News;
pub use lease::Lease;
