//! Describes a VMDK as text, for tests and for people. It reads what the format says, not what our writers do.

use std::fmt::Write;
use std::fs::File;
use std::os::unix::fs::FileExt;

use super::Error;
use super::descriptor::{Descriptor, TEXT_LIMIT};
use super::disk::start;
use super::sparse::{Caches, Sparse};

/// The header's fields, the descriptor, and runs of stored grains as `grains FIRST..END at sector PLACE`, `grains FIRST..END are zero`. Of a file that only
/// describes a disk, its text. Of more runs than anybody reads, only where they begin: tables may lie in one place, so that a small file has any number.
pub fn dump(file: &File) -> Result<String, Error> {
    if Descriptor::starts(&start(file).map_err(Error::Open)?) {
        let size = file.metadata().map_err(Error::Open)?.len();
        let mut text = vec![0; usize::try_from(size).map_or(TEXT_LIMIT, |size| size.min(TEXT_LIMIT))];
        file.read_exact_at(&mut text, 0).map_err(Error::Open)?;
        return Ok(String::from_utf8_lossy(&text).into_owned());
    }
    let sparse = Sparse::open(file.try_clone().map_err(Error::Open)?, 0)?;
    let mut text = format!("{:#?}\n{}", sparse.header(), String::from_utf8_lossy(&sparse.descriptor()?));
    let caches = Caches::default();
    let mut run: Option<Run> = None;
    let (mut from, mut told) = (0, 0);
    while let Some(at) = sparse.next_stored(from, &caches)? {
        let number = at / sparse.grain();
        // 1 is a grain that is known to be zero
        let place = Some(sparse.entry(number, &caches)?).filter(|&place| place != 1);
        match &mut run {
            Some(run) if run.goes_on(number, place, sparse.header().grain_sectors) => run.end += 1,
            _ => {
                if let Some(run) = run.replace(Run { first: number, end: number + 1, place }) {
                    run.tell(&mut text);
                    told += 1;
                }
                if told == RUNS {
                    writeln!(text, "and more from grain {number} on").expect("a string takes all");
                    return Ok(text);
                }
            }
        }
        from = (number + 1) * sparse.grain();
    }
    if let Some(run) = run {
        run.tell(&mut text);
    }
    Ok(text)
}

/// Runs that are told of; a disk of 16 GiB has as many grains.
const RUNS: u32 = 1 << 18;

/// Grains that lie one behind the other both on the disk and in the file, or that are zero.
struct Run {
    first: u64,
    end: u64,
    place: Option<u32>,
}

impl Run {
    fn goes_on(&self, number: u64, place: Option<u32>, grain: u64) -> bool {
        let next = self.place.map(|place| u64::from(place) + (number - self.first) * grain);
        self.end == number && next == place.map(u64::from)
    }

    fn tell(&self, text: &mut String) {
        let Run { first, end, place } = self;
        let told = match place {
            Some(place) => writeln!(text, "grains {first}..{end} at sector {place}"),
            None => writeln!(text, "grains {first}..{end} are zero"),
        };
        told.expect("a string takes all");
    }
}

#[cfg(test)]
mod tests {
    use super::super::format::Header;
    use super::*;

    #[test]
    fn tables_in_one_place_are_not_told_of_for_ever() {
        // 2048 tables, all at sector 40, in which every other grain is stored
        let header = Header { descriptor_sectors: 0, directory_at: 1, ..Header::new(2048 * 512 * 128) };
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(&header.to_bytes(), 0).unwrap();
        file.write_all_at(&40u32.to_le_bytes().repeat(2048), 512).unwrap();
        file.write_all_at(&[50u32.to_le_bytes(), [0; 4]].concat().repeat(256), 40 * 512).unwrap();
        let text = dump(&file).unwrap();
        assert_eq!(text.lines().filter(|line| line.starts_with("grains ")).count(), RUNS as usize);
        assert!(text.ends_with("and more from grain 524288 on\n"), "{}", &text[text.len() - 100..]);
    }
}
