//! The machine's networks: cards, addresses, routes, and who is asked for them. Which of them a container gets: the caller's decision.

pub mod announce;
pub mod card;
pub mod dhcp;
pub mod firewall;
pub mod netlink;
pub mod networks;
pub mod packet;
pub mod stack;
