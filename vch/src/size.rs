//! The sizes of a machine as docker writes them: `512m`, `1.5g`, `--cpus 2`.

/// An amount of memory, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Size(u64);

impl Size {
    /// In MiB, as QEMU takes it: what is left over counts as a whole one.
    pub fn mebibytes(self) -> u64 {
        self.0.div_ceil(MIB)
    }
}

/// Processor time, in thousandths of one processor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cpus(u32);

impl Cpus {
    /// How many processors a machine needs to give so much: they are whole.
    pub fn processors(self) -> u8 {
        u8::try_from(self.0.div_ceil(1000)).unwrap_or(MOST_PROCESSORS)
    }

    /// What the container may use of them, if that is less than all.
    pub fn limit(self) -> Option<u32> {
        (!self.0.is_multiple_of(1000)).then_some(self.0)
    }
}

/// Parses a number of bytes: with `b`, `k`, `m`, `g` or `t`, in powers of 1024, also spelled `kb` or `KiB`.
pub fn bytes(text: &str) -> Result<u64, String> {
    let unit_at = text.find(|char: char| !(char.is_ascii_digit() || char == '.')).unwrap_or(text.len());
    let (number, unit) = text.split_at(unit_at);
    let factor: u64 = match unit.trim_start().to_lowercase().as_str() {
        "" | "b" => 1,
        "k" | "kb" | "kib" => 1 << 10,
        "m" | "mb" | "mib" => MIB,
        "g" | "gb" | "gib" => 1 << 30,
        "t" | "tb" | "tib" => 1 << 40,
        _ => return Err("write it as 512m, 1g or a number of bytes".into()),
    };
    let number: f64 = number.parse().map_err(|_| "write it as 512m, 1g or a number of bytes")?;
    #[allow(clippy::cast_possible_truncation, clippy::cast_precision_loss, clippy::cast_sign_loss)]
    // it saturates, and MOST is checked
    let bytes = (number * factor as f64) as u64;
    if bytes > MOST { Err("that is more than 16 TiB".into()) } else { Ok(bytes) }
}

/// Parses `-m`.
pub fn memory(text: &str) -> Result<Size, String> {
    match bytes(text)? {
        ..LEAST => Err(format!("a virtual machine needs at least {} MiB", LEAST / MIB)),
        bytes => Ok(Size(bytes)),
    }
}

/// Parses `--cpus`: at most three decimals count.
pub fn cpus(text: &str) -> Result<Cpus, String> {
    let wrong = || format!("write a number from 0.01 to {MOST_PROCESSORS}, as 2 or 1.5");
    let number: f64 = text.parse().map_err(|_| wrong())?;
    if !(0.01..=f64::from(MOST_PROCESSORS)).contains(&number) {
        return Err(wrong());
    }
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // it is at most 64,000
    let thousandths = (number * 1000.0).round() as u32;
    Ok(Cpus(thousandths))
}

const MIB: u64 = 1 << 20;
/// Below this the kernel and its initramfs have no room to start.
const LEAST: u64 = 64 * MIB;
const MOST: u64 = 16 << 40;
const MOST_PROCESSORS: u8 = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_in_dockers_syntax() {
        let check = |text: &str, mebibytes: u64| assert_eq!(memory(text).map(Size::mebibytes), Ok(mebibytes), "{text}");
        check("512m", 512);
        check("512M", 512);
        check("1g", 1024);
        check("1.5g", 1536);
        check("2 GiB", 2048);
        check("1t", 1 << 20);
        check("134217728", 128);
        check("134217729b", 129);
        check("65536k", 64);
        for text in ["", "m", "-1m", "1x", "1mm", "1.2.3g", "63m", "20t", "99999999999999t", "0"] {
            assert!(memory(text).is_err(), "{text}");
        }
    }

    #[test]
    fn processors_are_whole_and_time_is_not() {
        let check = |text: &str, processors: u8, limit: Option<u32>| {
            let cpus = cpus(text).unwrap_or_else(|error| panic!("{text}: {error}"));
            assert_eq!((cpus.processors(), cpus.limit()), (processors, limit), "{text}");
        };
        check("2", 2, None);
        check("2.0", 2, None);
        check("1.5", 2, Some(1500));
        check("0.25", 1, Some(250));
        check("64", 64, None);
        for text in ["0", "", "many", "65", "-1", "0.001", "64.5", "NaN", "inf"] {
            assert!(super::cpus(text).is_err(), "{text}");
        }
    }
}
