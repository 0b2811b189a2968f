//! Contents that an image holds already: a file of the tree whose bytes lie in one piece within the EFI system partition, as kernel and initramfs do within
//! the program that UEFI starts. Its record names the blocks there, and it is not stored again.
//!
//! It is told by where bytes come from, and never by reading them: the same part of the same source at the same distance.

use std::sync::Arc;

use super::format::SECTOR_BYTES;
use crate::tree::{Content, Extent, Source};

/// The block of `whole` at which all of `part` lies; `None` if it does not, or not at the beginning of a block.
pub(super) fn find(whole: &Content, part: &Content) -> Option<u64> {
    let first = part.extents.first()?;
    let candidates = whole.extents.iter().filter(|extent| {
        same(&extent.source, &first.source)
            && extent.from <= first.from
            && first.from + first.len <= extent.from + extent.len
    });
    let mut starts = candidates.filter_map(|extent| (extent.at + (first.from - extent.from)).checked_sub(first.at));
    let start = starts.find(|start| start % SECTOR_BYTES == 0 && lies_at(whole, part, *start))?;
    Some(start / SECTOR_BYTES)
}

/// Are the bytes of `whole` from `start` on, for as long as `part` is, those of `part`?
fn lies_at(whole: &Content, part: &Content, start: u64) -> bool {
    let end = start + part.size;
    let within = whole.extents.iter().filter(|extent| extent.at < end && extent.at + extent.len > start);
    let cut = within.map(|extent| {
        let (from, to) = (extent.at.max(start), (extent.at + extent.len).min(end));
        Extent { at: from - start, len: to - from, from: extent.from + (from - extent.at), ..extent.clone() }
    });
    let equal = |(one, other): (Extent, &Extent)| {
        (one.at, one.len, one.from) == (other.at, other.len, other.from) && same(&one.source, &other.source)
    };
    let cut: Vec<Extent> = cut.collect();
    end <= whole.size && cut.len() == part.extents.len() && cut.into_iter().zip(part.extents.iter()).all(equal)
}

fn same(one: &Source, other: &Source) -> bool {
    match (one, other) {
        (Source::File(one), Source::File(other)) => Arc::ptr_eq(one, other),
        (Source::Memory(one), Source::Memory(other)) => Arc::ptr_eq(one, other),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(content: &Content, at: u64) -> Vec<Extent> {
        content.extents.iter().map(|extent| Extent { at: extent.at + at, ..extent.clone() }).collect()
    }

    #[test]
    fn a_part_is_found_by_its_source_and_only_at_a_block() {
        let (one, other) = (Content::from_bytes(vec![1; 3000]), Content::from_bytes(vec![1; 3000]));
        let whole = |start| Content { size: 20_000, extents: [at(&other, 0), at(&one, start)].concat().into() };
        assert_eq!(find(&whole(4096), &one), Some(2));
        assert_eq!(find(&whole(4096), &other), Some(0));
        assert_eq!(find(&whole(4097), &one), None, "not at a block");
        assert_eq!(find(&whole(4096), &Content::from_bytes(vec![1; 3000])), None, "other bytes, if equal ones");
        assert_eq!(find(&whole(18_432), &one), None, "it would end beyond the whole");
    }

    #[test]
    fn holes_are_part_of_a_content() {
        let bytes = Content::from_bytes(vec![1; 100]);
        let with_hole = Content { size: 5000, extents: at(&bytes, 4000).into() };
        let whole = Content { size: 20_000, extents: at(&bytes, 2048 + 4000).into() };
        assert_eq!(find(&whole, &with_hole), Some(1));
        let filled = Content { size: 20_000, extents: [at(&bytes, 3000), at(&bytes, 2048 + 4000)].concat().into() };
        assert_eq!(find(&filled, &with_hole), None, "something lies in the hole");
        let longer = Content { size: 5000, extents: [at(&bytes, 0), at(&bytes, 4000)].concat().into() };
        let begun = Content { size: 20_000, extents: at(&bytes, 2048).into() };
        assert_eq!(find(&begun, &longer), None, "its end is missing");
        let shorter = Content { size: 50, extents: Extent { len: 50, ..bytes.extents[0].clone() }.into() };
        assert_eq!(
            find(&Content { size: 4096, extents: at(&bytes, 2048).into() }, &shorter),
            Some(1),
            "a part of an extent"
        );
    }
}
