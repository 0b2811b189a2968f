//! Machines that are forked from one that booted before: its memory is the template.
//!
//! ```text
//! kept      what is kept of it, and how it is known to be whole     keeper    the process that keeps it between the runs of vch
//! pressure  when the host wants its memory back
//! ```

pub mod keeper;
pub mod kept;
mod pressure;
