//! What vCenter asks of a guest, and what a guest tells it: the part of VMware Tools that a containerVM serves.
//!
//! A message goes in, answers and wishes come out; nothing here does anything. Channels are [`crate::vmware`]'s, and what is done is decided by PID 1.
