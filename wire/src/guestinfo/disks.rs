//! The keys of the container's root and of what is mounted in it.

use super::SpecError;
use super::node::{Node, Writer};
use crate::spec::{Mount, Root, Spec};

pub(super) fn read_root(_root: &Node<'_>) -> Result<Root, SpecError> {
    Ok(Root::default())
}

pub(super) fn read_mounts(_root: &Node<'_>) -> Result<Vec<Mount>, SpecError> {
    Ok(Vec::new())
}

pub(super) fn write(_keys: &mut Writer<'_>, _spec: &Spec) {}
