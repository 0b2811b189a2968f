//! The keys of the container's limits, and of what is told about it.

use super::SpecError;
use super::node::{Node, Writer};
use crate::spec::{Diagnostics, Machine, Spec};

pub(super) fn read_machine(_root: &Node<'_>) -> Result<Machine, SpecError> {
    Ok(Machine::default())
}

pub(super) fn read_diagnostics(_root: &Node<'_>) -> Result<Diagnostics, SpecError> {
    Ok(Diagnostics::default())
}

pub(super) fn write(_keys: &mut Writer<'_>, _spec: &Spec) {}
