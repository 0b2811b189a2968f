//! What a kernel is made of and what it weighs, as text: sizes, the options of each fragment, and what a fragment costs.
//!
//! It compares files that are there; building them is [`super::obtain`]'s.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use super::config;
use super::image::Image;
use super::selection::Selection;
use crate::digest;

/// The fragments there are, with what each is for.
pub fn fragments() -> String {
    let line = |(name, text): &(&str, &str)| {
        let count = config::options(text).count();
        filled(&format!("{name:<14} {count:>3} options: "), 28, config::reason(text).split(' '))
    };
    config::FRAGMENTS.iter().map(line).collect()
}

/// The kernel of `selection`: its sizes, what each fragment sets, and what Kconfig added. `config` is its final configuration.
pub fn kernel(bytes: &[u8], config: &str, selection: &Selection) -> Result<String, &'static str> {
    let mut text = sizes(bytes)?;
    for fragment in selection.fragments() {
        let has: BTreeSet<&str> = config::options(config).collect();
        let said = |line: &str| {
            // `# CONFIG_X is not set` and an option that fell with a fragment look alike without this.
            let lost = if !line.starts_with('#') && !has.contains(line) { " (off)" } else { "" };
            let short = line.trim_start_matches("CONFIG_").trim_end_matches("=y");
            format!("{}{lost}", short.replace("# CONFIG_", "no ").replace(" is not set", ""))
        };
        let options: Vec<String> = config::options(&fragment.text).map(said).collect();
        text += &filled(&format!("\n{}: ", fragment.name), 4, config::reason(&fragment.text).split(' '));
        text += &filled(&format!("  {} options: ", options.len()), 4, options.iter().map(|option| &**option));
    }
    let asked: BTreeSet<&str> = selection.fragments().iter().flat_map(|one| config::options(&one.text)).collect();
    let added = on(config).filter(|line| !asked.contains(line)).count();
    let _infallible = writeln!(text, "\nKconfig turned on {added} more, which these need or nobody can turn off.");
    Ok(text)
}

/// What a kernel of others' weighs.
pub fn sizes(bytes: &[u8]) -> Result<String, &'static str> {
    let image = Image::parse(bytes)?;
    Ok(format!(
        "{}\n{} bytes, packed in {} from {}\nsha256 {}\n",
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
    let sizes = format!(
        "without {fragment}: {} bytes, {}\n  unpacked {}\n",
        grouped(without.0.len() as u64),
        less(with.0.len() as u64, without.0.len() as u64),
        less(unpacked(with.0)?, unpacked(without.0)?),
    );
    Ok(sizes + &filled(&format!("{} options less: ", gone.len()), 4, names))
}

/// The options that a configuration turns on.
fn on(config: &str) -> impl Iterator<Item = &str> {
    config::options(config).filter(|line| !line.starts_with('#'))
}

/// Words after a heading, in lines that fit any terminal; all but the first are indented.
fn filled<'a>(heading: &str, indent: usize, words: impl IntoIterator<Item = &'a str>) -> String {
    let mut text = heading.trim_end().to_owned();
    let mut column = text.trim_start_matches('\n').chars().count();
    for word in words {
        let width = word.chars().count();
        if column + 1 + width > WIDTH {
            text += &format!("\n{:indent$}{word}", "");
            column = indent + width;
        } else {
            text += &format!(" {word}");
            column += 1 + width;
        }
    }
    text + "\n"
}

/// Columns of the smallest terminal that is in use.
const WIDTH: usize = 80;

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
        for part in ["6.12.3\n1,", " bytes, packed in gzip from ", "base: the machine itself\n", " VIRTIO_NET (off)"] {
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
    fn no_line_is_wider_than_a_terminal_and_no_option_is_torn() {
        let selection = Selection::of(&[], &[]).unwrap();
        let config = selection.merged().replace("CONFIG_VIRTIO_NET=y\n", "");
        let image = packed_by_gzip(&config);
        let without = cost("all", (&image, &config), (&packed_by_gzip(""), "")).unwrap();
        let text = kernel(&image, &config, &selection).unwrap() + &fragments() + &without;
        let wide: Vec<&str> = text.lines().filter(|line| line.chars().count() > 80).collect();
        assert!(wide.is_empty(), "{wide:?}");
        assert!(text.lines().filter(|line| line.starts_with("    ")).count() > 20, "{text}");
        assert!(!text.lines().any(|line| line.ends_with(" no") || line.trim_start().starts_with("(off)")), "{text}");
    }

    #[test]
    fn all_fragments_are_listed_with_their_reason() {
        let text = fragments();
        assert_eq!(text.lines().filter(|line| !line.starts_with(' ')).count(), config::FRAGMENTS.len());
        assert!(text.contains("vmware           6 options: the devices of an ESXi VM as VCH makes it\n"), "{text}");
    }
}
