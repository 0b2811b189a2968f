//! Signals by name.

/// The Linux number of a signal by its number or its name, with or without `SIG`.
pub fn signal_number(text: &str) -> Option<u8> {
    if let Ok(number) = text.parse() {
        return (1..=64).contains(&number).then_some(number);
    }
    let name = text.to_uppercase();
    let name = name.strip_prefix("SIG").unwrap_or(&name);
    if let Some(index) = SIGNALS.iter().position(|&known| known == name) {
        return u8::try_from(index + 1).ok();
    }
    let (base, distance): (u8, i8) = match (name.strip_prefix("RTMIN"), name.strip_prefix("RTMAX")) {
        (Some(rest), _) => (SIGRTMIN, if rest.is_empty() { 0 } else { rest.strip_prefix('+')?.parse().ok()? }),
        (_, Some(rest)) => {
            (SIGRTMAX, if rest.is_empty() { 0 } else { format!("-{}", rest.strip_prefix('-')?).parse().ok()? })
        }
        (None, None) => return None,
    };
    base.checked_add_signed(distance).filter(|number| (SIGRTMIN..=SIGRTMAX).contains(number))
}

/// The real-time signals that programs can use, as docker and every C library on Linux count them: `signal(7)`.
const SIGRTMIN: u8 = 34;
const SIGRTMAX: u8 = 64;

/// Signal names in the order of their numbers, from 1: `signal(7)`, x86.
const SIGNALS: [&str; 31] = [
    "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2", "PIPE", "ALRM", "TERM",
    "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG", "XCPU", "XFSZ", "VTALRM", "PROF", "WINCH", "IO",
    "PWR", "SYS",
];
