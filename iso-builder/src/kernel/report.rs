//! What a kernel is made of and what it weighs, as text: sizes, the options of each fragment, and what a fragment costs.
//!
//! It compares files that are there; building them is [`super::obtain`]'s.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use super::config;
use super::image::Image;
use super::selection::Selection;
use crate::digest;

/// The fragments there are, a line each, with what each is for.
pub fn fragments() -> String {
    let line = |(name, text): &(&str, &str)| {
        let count = config::options(text).count();
        format!("{name:<14} {count:>3} options: {}\n", config::reason(text))
    };
    config::FRAGMENTS.iter().map(line).collect()
}

/// The kernel of `selection`: its sizes, what each fragment sets, and what Kconfig added. `config` is its final configuration.
pub fn kernel(bytes: &[u8], config: &str, selection: &Selection) -> Result<String, &'static str> {
    let mut text = sizes(bytes)?;
    for fragment in selection.fragments() {
        let (mut said, count) = (String::new(), config::options(&fragment.text).count());
        let has: BTreeSet<&str> = config::options(config).collect();
        for line in config::options(&fragment.text) {
            // `# CONFIG_X is not set` and an option that fell with a fragment look alike without this.
            let lost = if !line.starts_with('#') && !has.contains(line) { " (off)" } else { "" };
            let short = line.trim_start_matches("CONFIG_").trim_end_matches("=y");
            let _infallible = write!(said, " {}{lost}", short.replace("# CONFIG_", "no ").replace(" is not set", ""));
        }
        let reason = config::reason(&fragment.text);
        let _infallible = write!(text, "{}: {reason}\n  {count} options:{said}\n", fragment.name);
    }
    let asked: BTreeSet<&str> = selection.fragments().iter().flat_map(|one| config::options(&one.text)).collect();
    let added = on(config).filter(|line| !asked.contains(line)).count();
    let _infallible = writeln!(text, "Kconfig turned on {added} more, which these need or nobody can turn off.");
    Ok(text)
}

/// What a kernel of others' weighs.
pub fn sizes(bytes: &[u8]) -> Result<String, &'static str> {
    let image = Image::parse(bytes)?;
    Ok(format!(
        "{}\n{} bytes, packed in {} from {}; sha256 {}\n",
        image.version(),
        grouped(bytes.len() as u64),
        image.packing(),
        grouped(image.unpacked_size().into()),
        digest::bytes(bytes),
    ))
}

/// What `fragment` costs: `with` and `without` it are pairs of a kernel and its configuration.
pub fn cost(fragment: &str, with: (&[u8], &str), without: (&[u8], &str)) -> Result<String, &'static str> {
    let unpacked = |bytes| Image::parse(bytes).map(|image| u64::from(image.unpacked_size()));
    let less = |with: u64, without: u64| match with.checked_sub(without) {
        Some(less) => format!("{} bytes less ({}.{} %)", grouped(less), less * 100 / with, less * 1000 / with % 10),
        None => format!("{} bytes MORE", grouped(without - with)),
    };
    let kept: BTreeSet<&str> = on(without.1).collect();
    let gone: Vec<&str> = on(with.1).filter(|line| !kept.contains(line)).collect();
    let names: Vec<&str> = gone.iter().map(|line| config::name(line).trim_start_matches("CONFIG_")).collect();
    Ok(format!(
        "without {fragment}: {} bytes, {}; unpacked {}\n{} options less: {}\n",
        grouped(without.0.len() as u64),
        less(with.0.len() as u64, without.0.len() as u64),
        less(unpacked(with.0)?, unpacked(without.0)?),
        gone.len(),
        names.join(" "),
    ))
}

/// The options that a configuration turns on.
fn on(config: &str) -> impl Iterator<Item = &str> {
    config::options(config).filter(|line| !line.starts_with('#'))
}

/// 1,234,567
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::super::image::tests::packed_by_gzip;
    use super::*;

    #[test]
    fn a_report_names_sizes_fragments_and_what_came_by_itself() {
        let selection = Selection::of(&["virtio".to_owned()], &[]).unwrap();
        let config = selection.merged().replace("CONFIG_VIRTIO_NET=y\n", "") + "CONFIG_VIRTIO=y\nCONFIG_X=y\n";
        let text = kernel(&packed_by_gzip(&config), &config, &selection).unwrap();
        for part in ["6.12.3\n1,", " bytes, packed in gzip from ", "base: the machine itself\n", " VIRTIO_NET (off) "] {
            assert!(text.contains(part), "{part:?} is not in {text}");
        }
        assert!(text.contains("no LOCALVERSION_AUTO") && text.contains("turned on 2 more"), "{text}");
    }

    #[test]
    fn a_cost_is_a_difference() {
        let (large, small) = ("CONFIG_A=y\nCONFIG_B=y\nCONFIG_C=\"x\"\n", "CONFIG_A=y\n");
        let (with, without) = (packed_by_gzip(large), packed_by_gzip(small));
        let text = cost("b", (&with, large), (&without, small)).unwrap();
        assert!(text.starts_with("without b: 1,") && text.contains(" bytes less ("), "{text}");
        assert!(text.ends_with("\n2 options less: B C\n"), "{text}");
        assert_eq!(grouped(1_234_567), "1,234,567");
        assert_eq!(grouped(12), "12");
    }

    #[test]
    fn all_fragments_are_listed_with_their_reason() {
        let text = fragments();
        assert_eq!(text.lines().count(), config::FRAGMENTS.len());
        assert!(text.contains("vmware           6 options: the devices of an ESXi VM as VCH makes it\n"), "{text}");
    }
}
