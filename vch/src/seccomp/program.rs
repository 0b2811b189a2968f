//! A policy for system calls as a BPF program: seccomp(2), and Documentation/userspace-api/seccomp_filter.rst.
//!
//! A call is found by its number in a tree of ranges that are treated alike, so that a profile of hundreds of calls takes a dozen comparisons; what has
//! conditions has a list of rules. Numbers that the profile does not reach are newer than it: where they would be refused, they are `ENOSYS`, as runc has it, so
//! that a C library does it the old way.

use std::collections::BTreeMap;

/// What is done about a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    Allow,
    Log,
    Errno(u16),
    Trap,
    KillThread,
    KillProcess,
}

/// How an argument, as an unsigned number, stands to a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Comparison {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

/// `(argument & mask) comparison value`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Condition {
    /// 0 to 5.
    pub(super) argument: u8,
    pub(super) comparison: Comparison,
    pub(super) mask: u64,
    pub(super) value: u64,
}

/// The action, if all conditions hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Rule {
    pub(super) conditions: Vec<Condition>,
    pub(super) action: Action,
}

/// Rules by the number of their call, the first of a call first.
#[derive(Debug)]
pub(super) struct Table(pub(super) BTreeMap<u32, Vec<Rule>>);

/// What is done about every call.
#[derive(Debug)]
pub(super) struct Policy {
    pub(super) default: Action,
    /// Of 64-bit programs.
    pub(super) wide: Table,
    /// Of 32-bit programs.
    pub(super) narrow: Table,
}

/// The kernel takes no longer ones: `BPF_MAXINSNS`.
#[derive(Debug, thiserror::Error)]
#[error("it makes a filter of {0} instructions, and Linux takes {MOST}")]
pub(super) struct TooLong(usize);

/// The program, 8 bytes an instruction.
pub(super) fn assemble(policy: &Policy) -> Result<Vec<u8>, TooLong> {
    let wide = numbers(&policy.wide, policy.default, Some(X32));
    let narrow = numbers(&policy.narrow, policy.default, None);
    let mut code = vec![load(ARCH)];
    branch(&mut code, JEQ, AUDIT_ARCH_X86_64, wide, Vec::new());
    branch(&mut code, JEQ, AUDIT_ARCH_I386, narrow, Vec::new());
    code.push(ret(Action::KillProcess));
    if code.len() > MOST {
        return Err(TooLong(code.len()));
    }
    Ok(code.iter().flat_map(Instruction::bytes).collect())
}

/// From the number to the action; every path ends.
fn numbers(table: &Table, default: Action, beyond: Option<u32>) -> Vec<Instruction> {
    // each begins at a number, and ends where the next one begins
    let mut ranges: Vec<(u32, &[Rule])> = vec![(0, &[])];
    for (&number, rules) in &table.0 {
        ranges.extend([(number, &rules[..]), (number + 1, &[])]);
    }
    ranges.dedup_by(|next, last| {
        let same_place = next.0 == last.0;
        if same_place {
            last.1 = next.1;
        }
        same_place
    });
    ranges.dedup_by(|next, last| next.1 == last.1);
    let newest = table.0.keys().next_back().copied();
    let newer = match default {
        Action::Errno(_) => Action::Errno(ENOSYS),
        other => other,
    };
    let mut leaves: Vec<(u32, Vec<Instruction>)> =
        ranges.into_iter().map(|(start, rules)| (start, leaf(rules, default))).collect();
    if let (Some(newest), Some(last)) = (newest, leaves.last_mut())
        && last.0 > newest
    {
        last.1 = vec![ret(newer)];
    }
    if let Some(start) = beyond {
        // another way to make 64-bit calls, which the guest's kernel does not have
        leaves.push((start, vec![ret(Action::Errno(ENOSYS))]));
    }
    let mut code = vec![load(NUMBER)];
    code.extend(tree(&leaves));
    code
}

/// Halves the ranges until one is left.
fn tree(leaves: &[(u32, Vec<Instruction>)]) -> Vec<Instruction> {
    match leaves {
        [] => Vec::new(),
        [(_, code)] => code.clone(),
        _ => {
            let (left, right) = leaves.split_at(leaves.len() / 2);
            let mut code = Vec::new();
            branch(&mut code, JGE, right[0].0, tree(right), tree(left));
            code
        }
    }
}

/// The rules of one call, in order, and the default.
fn leaf(rules: &[Rule], default: Action) -> Vec<Instruction> {
    let mut code = Vec::new();
    for Rule { conditions, action } in rules {
        // from the last condition to the first: what follows is run if all have held
        let mut then = vec![ret(*action)];
        for condition in conditions.iter().rev() {
            then = compare(condition, then);
        }
        code.extend(then);
        if conditions.is_empty() {
            return code;
        }
    }
    code.push(ret(default));
    code
}

/// `then` if the condition holds; otherwise what comes behind it. `then` must not come out at its end, or only because something did not hold.
fn compare(condition: &Condition, then: Vec<Instruction>) -> Vec<Instruction> {
    let Condition { argument, comparison, mask, value } = condition;
    let (low, high) = (ARGUMENTS + 8 * u32::from(*argument), ARGUMENTS + 8 * u32::from(*argument) + 4);
    let half = |offset: u32, mask: u32| [load(offset), Instruction { code: AND, jt: 0, jf: 0, k: mask }];
    let (mask_low, mask_high) = (low_half(*mask), low_half(*mask >> 32));
    let (value_low, value_high) = (low_half(*value), low_half(*value >> 32));
    let length = then.len();
    let mut code = Vec::new();
    // leave: jump over everything that is left, of which `then` is the end
    let out = |left: usize| Instruction { code: JA, jt: 0, jf: 0, k: count(left + length) };
    let test = |code: u16, jt: u8, jf: u8, k: u32| Instruction { code, jt, jf, k };
    code.extend(half(high, mask_high));
    match comparison {
        Comparison::Equal => {
            code.extend([test(JEQ, 1, 0, value_high), out(4)]);
            code.extend(half(low, mask_low));
            code.extend([test(JEQ, 1, 0, value_low), out(0)]);
        }
        Comparison::NotEqual => {
            // another high half decides: over the low half, to `then`
            code.push(test(JEQ, 0, 4, value_high));
            code.extend(half(low, mask_low));
            code.extend([test(JEQ, 0, 1, value_low), out(0)]);
        }
        Comparison::Greater | Comparison::GreaterOrEqual => {
            let least = if *comparison == Comparison::Greater { JGT } else { JGE };
            code.extend([test(JGT, 6, 0, value_high), test(JEQ, 1, 0, value_high), out(4)]);
            code.extend(half(low, mask_low));
            code.extend([test(least, 1, 0, value_low), out(0)]);
        }
        Comparison::Less | Comparison::LessOrEqual => {
            let most = if *comparison == Comparison::Less { JGE } else { JGT };
            code.extend([test(JGE, 0, 6, value_high), test(JEQ, 1, 0, value_high), out(4)]);
            code.extend(half(low, mask_low));
            code.extend([test(most, 0, 1, value_low), out(0)]);
        }
    }
    code.extend(then);
    code
}

/// `yes` if the accumulator compares with `k`, else `no`, or what comes behind if that is empty.
fn branch(code: &mut Vec<Instruction>, how: u16, k: u32, yes: Vec<Instruction>, no: Vec<Instruction>) {
    // a jump on a condition reaches 255 instructions only
    code.push(Instruction { code: how, jt: 1, jf: 0, k });
    code.push(Instruction { code: JA, jt: 0, jf: 0, k: count(yes.len()) });
    code.extend(yes);
    code.extend(no);
}

/// One instruction: `struct sock_filter`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Instruction {
    code: u16,
    jt: u8,
    jf: u8,
    k: u32,
}

impl Instruction {
    fn bytes(&self) -> [u8; 8] {
        let ([a, b], [c, d, e, f]) = (self.code.to_le_bytes(), self.k.to_le_bytes());
        [a, b, self.jt, self.jf, c, d, e, f]
    }
}

fn load(offset: u32) -> Instruction {
    Instruction { code: LOAD, jt: 0, jf: 0, k: offset }
}

fn ret(action: Action) -> Instruction {
    let value = match action {
        Action::Allow => 0x7fff_0000,
        Action::Log => 0x7ffc_0000,
        Action::Errno(errno) => 0x0005_0000 | u32::from(errno),
        Action::Trap => 0x0003_0000,
        Action::KillThread => 0,
        Action::KillProcess => 0x8000_0000,
    };
    Instruction { code: RETURN, jt: 0, jf: 0, k: value }
}

#[allow(clippy::cast_possible_truncation)] // what is wanted
fn low_half(value: u64) -> u32 {
    value as u32
}

/// A distance in a program, which is checked to be short.
fn count(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
}

// linux/bpf_common.h
const LOAD: u16 = 0x20; // BPF_LD | BPF_W | BPF_ABS
const AND: u16 = 0x54; // BPF_ALU | BPF_AND | BPF_K
const JA: u16 = 0x05;
const JEQ: u16 = 0x15;
const JGT: u16 = 0x25;
const JGE: u16 = 0x35;
const RETURN: u16 = 0x06;
// struct seccomp_data
const NUMBER: u32 = 0;
const ARCH: u32 = 4;
const ARGUMENTS: u32 = 16;
// linux/audit.h
const AUDIT_ARCH_X86_64: u32 = 0xc000_003e;
const AUDIT_ARCH_I386: u32 = 0x4000_0003;
/// `__X32_SYSCALL_BIT`.
const X32: u32 = 0x4000_0000;
const ENOSYS: u16 = 38;
/// `BPF_MAXINSNS`.
const MOST: usize = 4096;

#[cfg(test)]
mod tests;
