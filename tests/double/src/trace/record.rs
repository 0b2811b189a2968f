//! What a run leaves behind for tests: each access with its registers, and what the guest has said.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::path::Path;

use crate::port::{Access, Processor};
use crate::{Direction, Vmx};

/// The files, where there are any.
#[derive(Debug, Default)]
pub(crate) struct Record {
    log: Option<File>,
    state: Option<File>,
    /// What of the state has been written.
    requests: usize,
    answers: usize,
}

impl Record {
    pub(crate) fn open(log: Option<&Path>, state: Option<&Path>) -> io::Result<Record> {
        // it may be a device
        let open = |path: &Path| OpenOptions::new().append(true).create(true).open(path);
        Ok(Record { log: log.map(open).transpose()?, state: state.map(open).transpose()?, requests: 0, answers: 0 })
    }

    /// One access, and its answer.
    pub(crate) fn access(&mut self, access: Access, before: &Processor, after: &Processor) {
        if let Some(log) = &mut self.log {
            // a log that cannot be written is missed by who reads it
            log.write_all(trace(access, before, after).as_bytes()).ok();
        }
    }

    /// What has been said since the last time.
    pub(crate) fn state(&mut self, vmx: &Vmx) {
        let Some(state) = &mut self.state else { return };
        let lines = |word: &str, said: &[Vec<u8>]| -> String {
            said.iter().map(|said| format!("{word} {}\n", said.escape_ascii())).collect()
        };
        let text = lines("rpci", &vmx.requests[self.requests..]) + &lines("tclo", &vmx.answers[self.answers..]);
        (self.requests, self.answers) = (vmx.requests.len(), vmx.answers.len());
        if !text.is_empty() {
            state.write_all(text.as_bytes()).ok();
        }
    }
}

/// Two lines, with all that differs from run to run left out: where the buffer lies.
fn trace(access: Access, before: &Processor, after: &Processor) -> String {
    let [asked, answered] = [("> ", before), ("< ", after)].map(|(arrow, registers)| {
        let [ax, bx, cx, dx, si, di, bp] = halves(registers);
        let is_asked = arrow == "> ";
        let buffer = |now: u64, then: u64| match is_asked {
            true => "BUF".to_owned(),
            false => format!("BUF+{:x}", now.wrapping_sub(then)),
        };
        let (name, rest) = match access {
            Access::Low => ("in   ", format!("si {si} di {di}")),
            Access::High(Direction::Out) => ("outsb", format!("si {} di {di} bp {bp}", buffer(after.rsi, before.rsi))),
            Access::High(Direction::In) => ("insb ", format!("si {si} di {} bp {bp}", buffer(after.rdi, before.rdi))),
        };
        let name = if is_asked { name } else { "     " };
        let ax = if registers.rax == before.rax { String::new() } else { format!(" ax {ax}") };
        format!("{arrow}{name}{ax} bx {bx} cx {cx} dx {dx} {rest}\n")
    });
    asked + &answered
}

/// The low halves, which are what VMX sees.
fn halves(registers: &Processor) -> [String; 7] {
    let Processor { rax, rbx, rcx, rdx, rsi, rdi, rbp } = *registers;
    [rax, rbx, rcx, rdx, rsi, rdi, rbp].map(|register| format!("{:08x}", register & u64::from(u32::MAX)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trace_tells_registers_and_not_where_things_lie() {
        let before = Processor { rax: 1, rbx: 0x10000, rcx: 22, rdx: 0x5659, rsi: 0x7ffc_1234, ..Processor::default() };
        let after = Processor { rcx: 0, rsi: 0x7ffc_1234 + 22, ..before };
        assert_eq!(
            trace(Access::High(Direction::Out), &before, &after),
            "> outsb bx 00010000 cx 00000016 dx 00005659 si BUF di 00000000 bp 00000000\n\
             <       bx 00010000 cx 00000000 dx 00005659 si BUF+16 di 00000000 bp 00000000\n"
        );
        let before = Processor { rsi: 5, ..before };
        let after = Processor { rax: 6, ..before };
        assert_eq!(
            trace(Access::Low, &before, &after),
            "> in    bx 00010000 cx 00000016 dx 00005659 si 00000005 di 00000000\n\
             <       ax 00000006 bx 00010000 cx 00000016 dx 00005659 si 00000005 di 00000000\n"
        );
    }

    #[test]
    fn what_was_said_is_written_once() {
        let path = std::env::temp_dir().join(format!("double-record-{}", std::process::id()));
        let mut record = Record::open(None, Some(&path)).unwrap();
        let mut vmx = Vmx::default();
        vmx.requests.push(b"log a\nb\0".to_vec());
        record.state(&vmx);
        vmx.answers.push(b"OK ".to_vec());
        record.state(&vmx);
        record.state(&vmx);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "rpci log a\\nb\\x00\ntclo OK \n");
        std::fs::remove_file(&path).unwrap();
    }
}
