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

/// Parses `-m`: a number with `b`, `k`, `m`, `g` or `t`, in powers of 1024, also spelled `kb` or `KiB`.
pub fn memory(text: &str) -> Result<Size, String> {
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
    match bytes {
        ..LEAST => Err(format!("a virtual machine needs at least {} MiB", LEAST / MIB)),
        MOST.. => Err("that is more than 16 TiB".into()),
        _ => Ok(Size(bytes)),
    }
}

/// Parses `--cpus`.
pub fn processors(text: &str) -> Result<u8, String> {
    match text.parse() {
        Ok(count @ 1..=64) => Ok(count),
        Err(_) if text.parse::<f64>().is_ok_and(|count| count.fract() != 0.0) => {
            Err("a virtual machine has whole processors, not parts of one".into())
        }
        _ => Err("write a whole number from 1 to 64".into()),
    }
}

const MIB: u64 = 1 << 20;
/// Below this the kernel and its initramfs have no room to start.
const LEAST: u64 = 64 * MIB;
const MOST: u64 = 16 << 40;

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
    fn processors_are_whole() {
        assert_eq!(processors("2"), Ok(2));
        assert_eq!(processors("1.5"), Err("a virtual machine has whole processors, not parts of one".into()));
        for text in ["0", "", "many", "65", "-1"] {
            assert!(processors(text).is_err(), "{text}");
        }
    }
}
