//! Programs are run here as the kernel would run them, and compared with what the profile says.

use super::super::compile;
use super::*;
use crate::cli::run::process::capability;

/// `struct seccomp_data` of a call.
fn call(arch: u32, number: u32, args: &[u64]) -> Vec<u8> {
    let mut data = [number.to_le_bytes(), arch.to_le_bytes()].concat();
    data.extend(0u64.to_le_bytes());
    let args = args.iter().copied().chain(std::iter::repeat(0)).take(6);
    data.extend(args.flat_map(u64::to_le_bytes));
    data
}

/// What a filter returns.
fn run(program: &[u8], data: &[u8]) -> u32 {
    let code: Vec<Instruction> = program
        .chunks(8)
        .map(|bytes| Instruction {
            code: u16::from_le_bytes([bytes[0], bytes[1]]),
            jt: bytes[2],
            jf: bytes[3],
            k: u32::from_le_bytes(bytes[4..].try_into().unwrap()),
        })
        .collect();
    let (mut at, mut accumulator) = (0, 0u32);
    loop {
        let Instruction { code, jt, jf, k } = code[at];
        at += 1;
        let holds = match code {
            LOAD => {
                accumulator = u32::from_le_bytes(data[k as usize..][..4].try_into().unwrap());
                continue;
            }
            AND => {
                accumulator &= k;
                continue;
            }
            JA => {
                at += k as usize;
                continue;
            }
            RETURN => return k,
            JEQ => accumulator == k,
            JGT => accumulator > k,
            JGE => accumulator >= k,
            other => panic!("{other:x}"),
        };
        at += usize::from(if holds { jt } else { jf });
    }
}

const ALLOW: u32 = 0x7fff_0000;
const EPERM: u32 = 0x0005_0001;
const NO_SUCH_CALL: u32 = 0x0005_0026;

fn wide(program: &[u8], name: &str, args: &[u64]) -> u32 {
    let number = u32::try_from(name.parse::<syscalls::x86_64::Sysno>().unwrap().id()).unwrap();
    run(program, &call(AUDIT_ARCH_X86_64, number, args))
}

fn narrow(program: &[u8], name: &str) -> u32 {
    let number = u32::try_from(name.parse::<syscalls::x86::Sysno>().unwrap().id()).unwrap();
    run(program, &call(AUDIT_ARCH_I386, number, &[]))
}

#[test]
fn a_profile_in_dockers_syntax() {
    let text = r#"{
        "defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 1,
        "archMap": [{"architecture": "SCMP_ARCH_X86_64", "subArchitectures": ["SCMP_ARCH_X86"]}],
        "syscalls": [
            {"names": ["read", "write", "exit_group", "futex_waitv", "no_such_call"], "action": "SCMP_ACT_ALLOW", "args": null},
            {"names": ["waitpid"], "action": "SCMP_ACT_ALLOW"},
            {"names": ["personality"], "action": "SCMP_ACT_ALLOW", "args": [{"index": 0, "value": 8, "op": "SCMP_CMP_EQ"}]},
            {"names": ["clone"], "action": "SCMP_ACT_ALLOW", "args": [{"index": 0, "value": 2114060288, "valueTwo": 0, "op": "SCMP_CMP_MASKED_EQ"}],
             "excludes": {"caps": ["CAP_SYS_ADMIN"]}},
            {"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38, "excludes": {"caps": ["CAP_SYS_ADMIN"]}},
            {"names": ["mount", "clone", "clone3"], "action": "SCMP_ACT_ALLOW", "includes": {"caps": ["CAP_SYS_ADMIN"]}},
            {"names": ["modify_ldt"], "action": "SCMP_ACT_ALLOW", "includes": {"arches": ["amd64", "x32", "x86"]}},
            {"names": ["sync"], "action": "SCMP_ACT_ALLOW", "includes": {"arches": ["arm64"]}},
            {"names": ["ptrace"], "action": "SCMP_ACT_ALLOW", "includes": {"minKernel": "4.8"}},
            {"names": ["bpf"], "action": "SCMP_ACT_ALLOW", "includes": {"minKernel": "99.0"}},
            {"names": ["kill"], "action": "SCMP_ACT_KILL_PROCESS"}
        ]}"#;
    let plain = compile(text, wire::spec::DOCKERS_CAPABILITIES).unwrap();
    for (name, args, expected) in [
        ("read", &[][..], ALLOW),
        ("exit_group", &[], ALLOW),
        ("open", &[], EPERM),
        ("waitid", &[], EPERM),
        ("personality", &[8], ALLOW),
        ("personality", &[9], EPERM),
        ("personality", &[8 | 1 << 32], EPERM),
        ("clone", &[17], ALLOW),
        ("clone", &[0x1000_0000], EPERM),
        ("clone3", &[], NO_SUCH_CALL),
        ("mount", &[], EPERM),
        ("modify_ldt", &[], ALLOW),
        ("sync", &[], EPERM),
        ("ptrace", &[], ALLOW),
        ("bpf", &[], EPERM),
        ("kill", &[], 0x8000_0000),
    ] {
        assert_eq!(wide(&plain, name, args), expected, "{name} {args:?}");
    }
    assert_eq!((narrow(&plain, "waitpid"), narrow(&plain, "read"), narrow(&plain, "open")), (ALLOW, ALLOW, EPERM));
    let admin = compile(text, capability("SYS_ADMIN").unwrap()).unwrap();
    assert_eq!((wide(&admin, "mount", &[]), wide(&admin, "clone", &[0x1000_0000])), (ALLOW, ALLOW));
    assert_eq!(wide(&admin, "clone3", &[]), ALLOW);
    // newer than all that the profile knows, another way in, and no architecture of ours
    assert_eq!(run(&plain, &call(AUDIT_ARCH_X86_64, 5000, &[])), NO_SUCH_CALL);
    assert_eq!(run(&plain, &call(AUDIT_ARCH_X86_64, X32, &[])), NO_SUCH_CALL);
    assert_eq!(run(&plain, &call(0x4000_0028, 0, &[])), 0x8000_0000);
}

#[test]
fn every_comparison_at_every_edge() {
    type Holds = fn(&u64, &u64) -> bool;
    let comparisons: [(&str, Comparison, Holds); 6] = [
        ("==", Comparison::Equal, u64::eq),
        ("!=", Comparison::NotEqual, u64::ne),
        ("<", Comparison::Less, u64::lt),
        ("<=", Comparison::LessOrEqual, u64::le),
        (">", Comparison::Greater, u64::gt),
        (">=", Comparison::GreaterOrEqual, u64::ge),
    ];
    let edges = [0, 1, 7, u64::from(u32::MAX), 1 << 32, (1 << 32) + 7, 7 << 32, u64::MAX - 1, u64::MAX];
    for (name, comparison, holds) in comparisons {
        for value in edges {
            let condition = |mask| Condition { argument: 2, comparison, mask, value };
            let second = Condition { argument: 5, comparison: Comparison::Equal, mask: u64::MAX, value: 3 };
            let rules = vec![
                Rule { conditions: vec![condition(u64::MAX), second], action: Action::Allow },
                Rule { conditions: vec![condition(0xff)], action: Action::Trap },
            ];
            let table = || Table(BTreeMap::from([(9, rules.clone())]));
            let policy = Policy { default: Action::KillThread, wide: table(), narrow: Table(BTreeMap::new()) };
            let program = assemble(&policy).unwrap();
            for argument in edges {
                for last in [3, 4] {
                    let expected = match (holds(&argument, &value) && last == 3, holds(&(argument & 0xff), &value)) {
                        (true, _) => ALLOW,
                        (false, true) => 0x0003_0000,
                        (false, false) => 0,
                    };
                    let data = call(AUDIT_ARCH_X86_64, 9, &[0, 0, argument, 0, 0, last]);
                    assert_eq!(run(&program, &data), expected, "{argument} {name} {value}, {last}");
                }
            }
        }
    }
}

#[test]
fn every_number_finds_its_rules() {
    let allowed = |number: u32| number % 7 < 4 || number == 100;
    let rule = || vec![Rule { conditions: Vec::new(), action: Action::Allow }];
    let table = || Table((0..500).filter(|number| allowed(*number)).map(|number| (number, rule())).collect());
    let program = assemble(&Policy { default: Action::Errno(1), wide: table(), narrow: table() }).unwrap();
    for arch in [AUDIT_ARCH_X86_64, AUDIT_ARCH_I386] {
        for number in 0..600 {
            let expected = match number {
                0..500 if allowed(number) => ALLOW,
                0..498 => EPERM,
                _ => NO_SUCH_CALL,
            };
            assert_eq!(run(&program, &call(arch, number, &[])), expected, "{number}");
        }
    }
    let mut rules = rule();
    rules[0].conditions = vec![Condition { argument: 0, comparison: Comparison::Equal, mask: 1, value: 1 }];
    let table = || Table((0..500).map(|number| (number, vec![rules[0].clone(); 2])).collect());
    assert!(assemble(&Policy { default: Action::Allow, wide: table(), narrow: Table(BTreeMap::new()) }).is_ok());
    let table = || Table((0..500).map(|number| (number, vec![rules[0].clone(); number as usize % 3 + 1])).collect());
    assert!(assemble(&Policy { default: Action::Allow, wide: table(), narrow: table() }).is_err());
}

#[test]
fn what_is_no_profile_is_refused() {
    let error = |text: &str| format!("{:#}", compile(text, 0).unwrap_err());
    assert!(error("{}").contains("defaultAction"));
    assert!(error("x").contains("no profile"));
    let with = |rule: &str| error(&format!(r#"{{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{rule}]}}"#));
    assert_eq!(with(r#"{"names":["read"],"action":"ALLOW"}"#), "\"ALLOW\" is no action");
    assert!(with(r#"{"names":["read"],"action":"SCMP_ACT_NOTIFY"}"#).contains("asks a program beside the container"));
    let argument = |op: &str, index: u8| {
        with(&format!(
            r#"{{"names":["read"],"action":"SCMP_ACT_ERRNO","args":[{{"index":{index},"value":1,"op":"{op}"}}]}}"#
        ))
    };
    assert_eq!(argument("EQ", 0), "\"EQ\" is no comparison");
    assert_eq!(argument("SCMP_CMP_EQ", 6), "a system call has the arguments 0 to 5, not 6");
}
