//! The machine's networks: cards, addresses, routes, and who is asked for them. Which of them a container gets: the caller's decision.

pub mod firewall;
pub mod link;
pub mod netlink;
