//! The hash by which directories with an index are ordered: half MD4 of the name, seeded by the file system.
//!
//! Half of MD4's steps over 32 bytes of the name at a time. Bytes are unsigned, as the superblock's flags say.

/// Hashes names for one file system.
#[derive(Clone, Copy, Debug)]
pub(super) struct NameHash {
    seed: [u32; 4],
}

/// The kernel's mark for the end of a directory; no name may have it.
const END: u32 = 0x7FFF_FFFF << 1;

impl NameHash {
    /// `seed` as the superblock has it. All zeros would mean MD4's own start; a digest never is.
    pub(super) fn new(seed: &[u8; 16]) -> NameHash {
        let word = |at| u32::from_le_bytes(std::array::from_fn(|byte| seed[4 * at + byte]));
        NameHash { seed: std::array::from_fn(word) }
    }

    /// The hash of a name; its lowest bit is always 0.
    pub(super) fn of(self, name: &[u8]) -> u32 {
        let mut state = self.seed;
        let mut rest = name;
        loop {
            half_md4(&mut state, &words(rest));
            match rest.get(32..) {
                Some(behind) if !behind.is_empty() => rest = behind,
                _ => break,
            }
        }
        match state[1] & !1 {
            END => END - 2,
            hash => hash,
        }
    }
}

/// The first 32 bytes of what is left of a name, most significant first, filled up with its length.
fn words(rest: &[u8]) -> [u32; 8] {
    let len = u32::from(u8::try_from(rest.len()).expect("names have at most 255 bytes"));
    let padding = len * 0x0101_0101;
    let mut words = [padding; 8];
    for (word, bytes) in words.iter_mut().zip(rest.chunks(4)) {
        *word = bytes.iter().fold(padding, |word, &byte| (word << 8).wrapping_add(u32::from(byte)));
    }
    words
}

/// One step of a round: which word it takes, and by how much it turns.
type Step = (usize, u32);

const ROUND_1: [Step; 8] = [(0, 3), (1, 7), (2, 11), (3, 19), (4, 3), (5, 7), (6, 11), (7, 19)];
const ROUND_2: [Step; 8] = [(1, 3), (3, 5), (5, 9), (7, 13), (0, 3), (2, 5), (4, 9), (6, 13)];
const ROUND_3: [Step; 8] = [(3, 3), (7, 9), (2, 11), (6, 15), (1, 3), (5, 9), (0, 11), (4, 15)];

fn half_md4(state: &mut [u32; 4], words: &[u32; 8]) {
    let choose = |x: u32, y: u32, z: u32| z ^ (x & (y ^ z));
    let majority = |x: u32, y: u32, z: u32| (x & y).wrapping_add((x ^ y) & z);
    let parity = |x: u32, y: u32, z: u32| x ^ y ^ z;
    let [mut a, mut b, mut c, mut d] = *state;
    let mut round = |steps: [Step; 8], constant: u32, mix: fn(u32, u32, u32) -> u32| {
        for (word, turn) in steps {
            let sum = a.wrapping_add(mix(b, c, d)).wrapping_add(words[word]).wrapping_add(constant);
            (a, b, c, d) = (d, sum.rotate_left(turn), b, c);
        }
    };
    round(ROUND_1, 0, choose);
    round(ROUND_2, 0x5A82_7999, majority);
    round(ROUND_3, 0x6ED9_EBA1, parity);
    for (word, add) in state.iter_mut().zip([a, b, c, d]) {
        *word = word.wrapping_add(add);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What `debugfs -R "dx_hash -h half_md4 -s 30313233-3435-3637-3839-616263646566 NAME"` says.
    #[test]
    fn hashes_as_debugfs_computes_them() {
        let hash = NameHash::new(b"0123456789abcdef");
        let cases: [(&str, u32); 4] = [
            ("a", 0x6624_92D2),
            ("hello", 0x57AB_A79A),
            ("exactly-thirty-two-bytes-long-ok", 0x98B6_FFC0),
            ("one-longer-than-thirty-two-bytes-it-is", 0x017E_9704),
        ];
        for (name, expected) in cases {
            assert_eq!(hash.of(name.as_bytes()), expected, "{name}");
        }
    }
}
