//! What the double is asked to be: its command line, of which the shim has one in fw_cfg. It reads no file but those that an option names.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::PathBuf;

use super::code::Hypercall;
use super::cpuid::Identity;
use crate::Vmx;

pub const USAGE: &str = "\
vmx-double [OPTION]... -- PROGRAM [ARGUMENT]...: runs a program as in a virtual machine of VMware's

  --info KEY=VALUE         a key of guestinfo, and so on
  --info-file KEY=FILE     the same, with a file's content
  --tclo TEXT              a question that the host asks, each after the one before it
  --no-hb, --no-cookies    no high bandwidth; no channel with cookies
  --checkpoint N           every Nth transfer is interrupted
  --checkpoint-at N        the Nth is
  --forget-at N            at the Nth, all channels are forgotten
  --authenticate           who has no privilege gets no key and sets none
  --deaf                   no channel can be opened
  --silent                 requests are not answered
  --swollen N              replies say that they have at least N bytes
  --keep-channels          a clone finds the channels of its template, and the answer to what froze it
  --kmsg FILE              the log of a guest's kernel, which is to say there that it has noticed that it is a clone
  --no-nic-v3              SetGuestInfo refuses slot 10
  --no-cpuid               the processor says what it is, and not VMware
  --hypercall NAME         it has vmcall, or vmmcall, in place of the port
  --vsock                  VMX is there by vsock too, for RPCI
  --log FILE               every access with its registers
  --state FILE             what the guest says: lines of `rpci REQUEST`, `tclo ANSWER`
  --control FILE           takes orders while the program runs: lines of `tclo TEXT`, `info KEY=VALUE`, `time SECONDS`, and
                           `clone`, on which a program that is frozen goes on
  --pid1                   it is an init: it goes on as the program itself, and a child of it traces

Texts escape control characters and the backslash as Rust does: \\n, \\\\, \\x00.
";

/// All of it.
#[derive(Debug)]
pub struct Options {
    pub(crate) vmx: Vmx,
    pub(crate) identity: Identity,
    pub(crate) vsock: bool,
    pub(crate) log: Option<PathBuf>,
    pub(crate) state: Option<PathBuf>,
    pub(crate) control: Option<PathBuf>,
    pub(crate) kmsg: Option<PathBuf>,
    pub(crate) pid1: bool,
    /// With its arguments.
    pub(crate) program: Vec<OsString>,
}

/// Why it cannot be that.
#[derive(Debug, thiserror::Error)]
pub enum OptionError {
    #[error("no program is named: vmx-double [OPTION]... -- PROGRAM")]
    NoProgram,
    #[error("there is no option {0}: see vmx-double --help")]
    Unknown(String),
    #[error("{0} needs a value")]
    NoValue(String),
    #[error("{option} takes {expected}, not {found:?}")]
    Value { option: String, expected: &'static str, found: String },
    #[error("cannot read {}", path.display())]
    Unreadable { path: PathBuf, source: std::io::Error },
}

impl Options {
    /// `arguments` has no name of a program before it.
    pub fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Options, OptionError> {
        let mut options = Options {
            vmx: Vmx::default(),
            identity: Identity { vmware: true, hypercall: None },
            vsock: false,
            log: None,
            state: None,
            control: None,
            kmsg: None,
            pid1: false,
            program: Vec::new(),
        };
        let mut arguments = arguments.into_iter();
        while let Some(name) = arguments.next() {
            let name = name.to_string_lossy().into_owned();
            let mut value = || arguments.next().ok_or_else(|| OptionError::NoValue(name.clone()));
            match name.as_str() {
                "--" => {
                    options.program.extend(arguments);
                    break;
                }
                "--info" => set(&mut options.vmx.guestinfo, &name, &value()?, |value| Ok(value.into()))?,
                "--info-file" => set(&mut options.vmx.guestinfo, &name, &value()?, |value| {
                    let path = PathBuf::from(OsString::from_vec(value.into()));
                    std::fs::read(&path).map_err(|source| OptionError::Unreadable { path, source })
                })?,
                "--tclo" => options.vmx.questions.push_back(unescape(value()?.as_bytes())),
                "--no-hb" => options.vmx.faults.no_high_bandwidth = true,
                "--no-cookies" => options.vmx.faults.no_cookies = true,
                "--checkpoint" => options.vmx.faults.checkpoint_every = Some(number(&name, &value()?)?),
                "--authenticate" => options.vmx.faults.authenticate = true,
                "--deaf" => options.vmx.faults.deaf = true,
                "--silent" => options.vmx.faults.silent = true,
                "--checkpoint-at" => options.vmx.faults.checkpoint_at = Some(number(&name, &value()?)?),
                "--forget-at" => options.vmx.faults.forgets_at = Some(number(&name, &value()?)?),
                "--swollen" => options.vmx.faults.swollen = Some(number(&name, &value()?)?),
                "--keep-channels" => options.vmx.faults.keeps_channels = true,
                "--no-nic-v3" => options.vmx.faults.no_nic_v3 = true,
                "--no-cpuid" => options.identity.vmware = false,
                "--hypercall" => options.identity.hypercall = Some(hypercall(&name, &value()?)?),
                "--vsock" => options.vsock = true,
                "--log" => options.log = Some(value()?.into()),
                "--state" => options.state = Some(value()?.into()),
                "--control" => options.control = Some(value()?.into()),
                "--kmsg" => options.kmsg = Some(value()?.into()),
                "--pid1" => options.pid1 = true,
                _ => return Err(OptionError::Unknown(name)),
            }
        }
        match options.program.is_empty() {
            true => Err(OptionError::NoProgram),
            false => Ok(options),
        }
    }

    /// Arguments with a zero byte after each, as fw_cfg has them and /proc/PID/cmdline.
    pub fn parse_bytes(bytes: &[u8]) -> Result<Options, OptionError> {
        let bytes = bytes.strip_suffix(&[0]).unwrap_or(bytes);
        let arguments = bytes.split(|&byte| byte == 0).filter(|_| !bytes.is_empty());
        Options::parse(arguments.map(|argument| OsString::from_vec(argument.into())))
    }
}

/// `KEY=VALUE`
pub(crate) fn key_and_value(text: &[u8]) -> Option<(String, &[u8])> {
    let at = text.iter().position(|&byte| byte == b'=').filter(|at| *at > 0)?;
    Some((String::from_utf8_lossy(&text[..at]).to_ascii_lowercase(), &text[at + 1..]))
}

fn set(
    keys: &mut BTreeMap<String, Vec<u8>>,
    option: &str,
    text: &OsString,
    value_of: impl FnOnce(&[u8]) -> Result<Vec<u8>, OptionError>,
) -> Result<(), OptionError> {
    let (key, value) =
        key_and_value(text.as_bytes()).ok_or_else(|| bad(option, "KEY=VALUE", &text.to_string_lossy()))?;
    keys.insert(key, value_of(value)?);
    Ok(())
}

fn number(option: &str, text: &OsString) -> Result<u32, OptionError> {
    let text = text.to_string_lossy();
    text.parse().ok().filter(|number| *number > 0).ok_or_else(|| bad(option, "a number above 0", &text))
}

fn hypercall(option: &str, text: &OsString) -> Result<Hypercall, OptionError> {
    match text.to_string_lossy().as_ref() {
        "vmcall" => Ok(Hypercall::Vmcall),
        "vmmcall" => Ok(Hypercall::Vmmcall),
        other => Err(bad(option, "vmcall or vmmcall", other)),
    }
}

fn bad(option: &str, expected: &'static str, found: &str) -> OptionError {
    OptionError::Value { option: option.into(), expected, found: found.into() }
}

/// The bytes that `escape_ascii` made a text of; other text is itself.
pub(crate) fn unescape(text: &[u8]) -> Vec<u8> {
    let (mut bytes, mut rest) = (Vec::new(), text);
    while let [first, after @ ..] = rest {
        let (byte, taken) = match (first, after) {
            (b'\\', [b'n', ..]) => (b'\n', 2),
            (b'\\', [b'r', ..]) => (b'\r', 2),
            (b'\\', [b't', ..]) => (b'\t', 2),
            (b'\\', [b'x', digits @ ..]) => {
                let digits = digits.get(..2).and_then(|digits| str::from_utf8(digits).ok());
                digits.and_then(|digits| u8::from_str_radix(digits, 16).ok()).map_or((b'\\', 1), |byte| (byte, 4))
            }
            (b'\\', [other @ (b'\\' | b'\'' | b'"'), ..]) => (*other, 2),
            (byte, _) => (*byte, 1),
        };
        bytes.push(byte);
        rest = &rest[taken..];
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Options, OptionError> {
        Options::parse(text.split(' ').map(OsString::from))
    }

    #[test]
    fn every_option_is_taken_and_the_programs_own_are_left() {
        let text = "--info guestinfo.A=b=c --tclo ping --tclo Set_Option\\x20a\\\\ --no-hb --no-cookies --checkpoint 3 \
            --authenticate --deaf --silent --checkpoint-at 4 --forget-at 5 --swollen 9 --no-nic-v3 --no-cpuid --hypercall vmmcall --vsock --log l --state s --control c --kmsg k --keep-channels -- p --info q";
        let options = parse(text).unwrap();
        assert_eq!(options.vmx.guestinfo, BTreeMap::from([("guestinfo.a".into(), b"b=c".to_vec())]));
        assert_eq!(options.vmx.questions, [&b"ping"[..], b"Set_Option a\\"].map(<[u8]>::to_vec));
        let faults = &options.vmx.faults;
        assert!(
            faults.no_high_bandwidth && faults.no_cookies && faults.authenticate && faults.deaf && faults.no_nic_v3
        );
        assert!(faults.silent && faults.keeps_channels);
        let numbers = [faults.checkpoint_every, faults.checkpoint_at, faults.forgets_at, faults.swollen];
        assert_eq!(numbers, [3, 4, 5, 9].map(Some));
        assert!(!options.identity.vmware && options.vsock && !options.pid1);
        assert_eq!(options.identity.hypercall, Some(Hypercall::Vmmcall));
        let files = [options.log, options.state, options.control, options.kmsg];
        assert_eq!(files, ["l", "s", "c", "k"].map(|name| Some(name.into())));
        assert_eq!(options.program, ["p", "--info", "q"]);
        for word in text.split(' ').filter(|word| word.len() > 2).filter_map(|word| word.strip_prefix("--")) {
            assert!(USAGE.contains(&format!("--{word}")), "--{word} is not explained");
        }
        let options = Options::parse_bytes(b"--info\0a=b\nc\0--pid1\0--\0/tether\0").unwrap();
        assert!(options.pid1 && options.program == ["/tether"]);
        assert_eq!(options.vmx.guestinfo["a"], b"b\nc");
    }

    #[test]
    fn what_makes_no_sense_is_named() {
        for (text, expected) in [
            ("--no-hb", "no program is named: vmx-double [OPTION]... -- PROGRAM"),
            ("--", "no program is named: vmx-double [OPTION]... -- PROGRAM"),
            ("--what -- p", "there is no option --what: see vmx-double --help"),
            ("--log", "--log needs a value"),
            ("--info a -- p", "--info takes KEY=VALUE, not \"a\""),
            ("--checkpoint 0 -- p", "--checkpoint takes a number above 0, not \"0\""),
            ("--hypercall int80 -- p", "--hypercall takes vmcall or vmmcall, not \"int80\""),
            ("--info-file a=/no/such -- p", "cannot read /no/such"),
        ] {
            assert_eq!(parse(text).unwrap_err().to_string(), expected);
        }
        assert!(matches!(Options::parse_bytes(b""), Err(OptionError::NoProgram)));
    }

    #[test]
    fn any_bytes_survive_being_a_text() {
        let all: Vec<u8> = (0..=255).collect();
        assert_eq!(unescape(all.escape_ascii().to_string().as_bytes()), all);
        assert_eq!(unescape(b"\\"), b"\\");
        assert_eq!(unescape(b"\\xg0\\x1"), b"\\xg0\\x1");
    }
}
