//! What is done for vCenter in a containerVM. When its channels are looked at and what is answered: [`guest::toolbox`].

mod files;
pub(crate) mod operations;

use guest::toolbox::Toolbox;
use guest::toolbox::tools::{self, Tools};
use wire::spec::Spec;

/// None on a machine that is not VMware's.
pub(crate) fn tools(spec: &Spec) -> Option<Tools> {
    let agent = concat!("tether ", env!("CARGO_PKG_VERSION"));
    Tools::new(Toolbox::new(&spec.id, &spec.link.key, agent), Box::new(tools::channels))
}
