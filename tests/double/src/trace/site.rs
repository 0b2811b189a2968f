//! The places in a process's memory where an INT3 stands for another instruction.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::rc::Rc;

use libc::c_void;
use nix::sys::ptrace;
use nix::unistd::Pid;

use super::code::{self, Site};
use super::proc::{Mapping, Remote};

const INT3: u8 = 0xcc;

/// What is known of files, so that each is looked through once.
#[derive(Debug, Default)]
pub(crate) struct Sites(HashMap<String, Rc<[Site]>>);

impl Sites {
    /// None in a file that cannot be read, such as one that was deleted.
    pub(crate) fn of(&mut self, mapping: &Mapping) -> Rc<[Site]> {
        let look = || std::fs::read(&mapping.path).map(|file| code::sites(&file)).unwrap_or_default().into();
        self.0.entry(mapping.identity.clone()).or_insert_with(look).clone()
    }
}

/// Those of one process, by address.
#[derive(Clone, Debug, Default)]
pub(crate) struct Planted(BTreeMap<u64, Site>);

impl Planted {
    pub(crate) fn at(&self, address: u64) -> Option<Site> {
        self.0.get(&address).copied()
    }

    /// Plants one, if it is not there yet: memory may have been mapped anew at the same place.
    pub(crate) fn put(&mut self, process: Pid, address: u64, site: &Site, memory: &mut Remote<'_>) -> io::Result<()> {
        let mut word = [0; 8];
        if memory.read_some(address, &mut word[..1]) == 1 && word[0] != INT3 {
            // a tracer writes whole words, into whatever may be read: each page becomes the process's own
            let aligned = address & !7;
            let at = aligned as *mut c_void;
            word = ptrace::read(process, at)?.to_ne_bytes();
            word[usize::try_from(address - aligned).unwrap_or_default()] = INT3;
            ptrace::write(process, at, i64::from_ne_bytes(word))?;
        }
        self.0.insert(address, *site);
        Ok(())
    }
}
