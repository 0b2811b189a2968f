//! The bytes of one channel as a test makes and judges them: known at every offset, so that millions need not be kept.

/// Bytes that look random and are known by their offset.
#[derive(Clone, Copy, Debug)]
pub struct Pattern(pub u64);

impl Pattern {
    /// splitmix64, Steele and others, "Fast splittable pseudorandom number generators".
    fn word(self, index: u64) -> [u8; 8] {
        let mut z = self.0.wrapping_add((index + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)).to_le_bytes()
    }

    /// The `count` bytes from `offset` on.
    pub fn bytes(self, offset: u64, count: usize) -> Vec<u8> {
        let skip = usize::try_from(offset % 8).expect("below 8");
        let words = (skip + count).div_ceil(8) as u64;
        let mut bytes: Vec<u8> = (0..words).flat_map(|n| self.word(offset / 8 + n)).collect();
        bytes.drain(..skip);
        bytes.truncate(count);
        bytes
    }
}

/// How eagerly a host reads a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Appetite {
    All,
    /// At most so many bytes each time that it looks.
    Sips(usize),
    Nothing,
}

/// What has come on a channel.
#[derive(Debug)]
pub struct Intake {
    /// How many bytes.
    pub count: u64,
    /// The bytes themselves; none of them when they follow a pattern.
    pub kept: Vec<u8>,
    /// The channel has come to its end.
    pub ended: bool,
    pub appetite: Appetite,
    /// What must come.
    pub pattern: Option<Pattern>,
    /// Nobody cares what it is: bytes are counted and dropped.
    pub counted_only: bool,
}

/// More than this is no text: the test should know its bytes by a pattern.
const MOST_KEPT: usize = 8 << 20;

impl Default for Intake {
    fn default() -> Intake {
        Intake { count: 0, kept: Vec::new(), ended: false, appetite: Appetite::All, pattern: None, counted_only: false }
    }
}

impl Intake {
    /// Judges or keeps what has come, at its offset. To a host that was restarted, some of it comes again: that must be the same.
    pub fn take(&mut self, offset: u64, bytes: &[u8]) {
        assert!(offset <= self.count, "{} bytes are missing", offset - self.count);
        let again = usize::try_from(self.count - offset).expect("64 bits").min(bytes.len());
        match self.pattern {
            _ if self.counted_only => {}
            Some(pattern) => same(bytes, &pattern.bytes(offset, bytes.len()), offset),
            None => {
                let at = usize::try_from(offset).expect("64 bits");
                same(&bytes[..again], &self.kept[at..at + again], offset);
                self.kept.extend_from_slice(&bytes[again..]);
            }
        }
        assert!(self.kept.len() <= MOST_KEPT, "a test keeps {} bytes", self.kept.len());
        self.count = self.count.max(offset + bytes.len() as u64);
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.kept).into_owned()
    }
}

fn same(bytes: &[u8], expected: &[u8], offset: u64) {
    if bytes != expected {
        let at = bytes.iter().zip(expected).position(|(one, other)| one != other).unwrap_or_default();
        let end = bytes.len().min(at + 16);
        let (got, wanted) = (&bytes[at..end], &expected[at..end]);
        panic!("byte {} is wrong: {got:02x?} came, not {wanted:02x?}", offset + at as u64);
    }
}

/// What is to go on a channel.
#[derive(Debug)]
pub struct Feed {
    what: What,
    /// Handed to the link so far.
    pub at: u64,
    finish: bool,
}

#[derive(Debug)]
enum What {
    Bytes(Vec<u8>),
    Pattern(Pattern, u64),
}

impl Default for Feed {
    fn default() -> Feed {
        Feed { what: What::Bytes(Vec::new()), at: 0, finish: false }
    }
}

impl Feed {
    /// Adds to what is to go.
    pub fn add(&mut self, more: &[u8]) {
        match &mut self.what {
            What::Bytes(bytes) => bytes.extend_from_slice(more),
            What::Pattern(..) => panic!("a pattern goes on this channel"),
        }
    }

    /// The first `length` bytes of a pattern are to go.
    pub fn pour(&mut self, pattern: Pattern, length: u64) {
        assert_eq!(self.at, 0, "something else went before");
        self.what = What::Pattern(pattern, length);
    }

    pub fn finish(&mut self) {
        self.finish = true;
    }

    pub fn is_finished(&self) -> bool {
        self.finish && self.at == self.length()
    }

    fn length(&self) -> u64 {
        match &self.what {
            What::Bytes(bytes) => bytes.len() as u64,
            What::Pattern(_, length) => *length,
        }
    }

    /// The next bytes to go, at most `most`.
    pub fn next(&self, most: usize) -> Vec<u8> {
        let left = usize::try_from(self.length().saturating_sub(self.at)).expect("64 bits");
        let count = left.min(most);
        match &self.what {
            What::Bytes(bytes) => {
                let at = usize::try_from(self.at).expect("64 bits");
                bytes[at..at + count].to_vec()
            }
            What::Pattern(pattern, _) => pattern.bytes(self.at, count),
        }
    }
}
