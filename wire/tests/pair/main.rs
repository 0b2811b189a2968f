//! Two ends of a link in one process: virtual time, and every fault that a line, a pipe or a process has.
//!
//! `storm` draws whole lives of a link from seeds, and compares every byte; a seed that failed is kept in `tests/seeds.txt` and replayed first.
//! The other files try one thing each.

#![allow(clippy::cast_possible_truncation, reason = "the numbers of a test are small")]

mod adoption;
mod beside;
mod dice;
mod ends;
mod flow;
mod greeting;
mod hostile;
mod knock;
mod lines;
mod rig;
mod seeds;
mod storm;
mod world;
