//! The keys of the networks that the container is on, and of names.

use super::SpecError;
use super::node::{Node, Writer};
use crate::spec::{Endpoint, Names, Spec};

pub(super) fn read_endpoints(_root: &Node<'_>) -> Result<Vec<Endpoint>, SpecError> {
    Ok(Vec::new())
}

pub(super) fn read_names(_root: &Node<'_>) -> Result<Names, SpecError> {
    Ok(Names::default())
}

pub(super) fn write(_keys: &mut Writer<'_>, _spec: &Spec) {}
