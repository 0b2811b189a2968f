//! Compresses grains on several threads and hands them on in their order.
//!
//! Batches go to the threads in turn and come back in turn, so neither the number of threads nor their speed shows in what is written. A thread has at most
//! `AHEAD` batches under way: memory is bounded.

use std::num::NonZero;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;

use flate2::{Compress, Compression, FlushCompress, Status};

use super::Error;
use super::format::{GRAIN, SECTOR, TABLE_ENTRIES};
use super::raw::{Raw, checksum, is_zero, next_grain, read_grain};

/// Some grains, each behind its marker and filled up to whole sectors.
#[derive(Debug, Default)]
pub(super) struct Batch {
    pub(super) bytes: Vec<u8>,
    pub(super) grains: Vec<Grain>,
    /// The grain that comes next.
    pub(super) end: u64,
}

#[derive(Debug)]
pub(super) struct Grain {
    pub(super) number: u64,
    /// In sectors, from the batch's start.
    pub(super) place: u64,
    pub(super) checksum: u32,
}

/// Tells `put` all grains that hold something. The grains of a batch have the same table.
pub(super) fn each_batch(
    raw: &dyn Raw,
    size: u64,
    threads: NonZero<usize>,
    put: &mut dyn FnMut(&Batch) -> Result<(), Error>,
) -> Result<(), Error> {
    thread::scope(|scope| {
        let workers: Vec<Worker> = (0..threads.get())
            .map(|_| {
                let (jobs, todo) = sync_channel(AHEAD);
                let (done, packed) = sync_channel(AHEAD);
                scope.spawn(move || work(raw, size, &todo, &done));
                Worker { jobs, packed }
            })
            .collect();
        let (mut sent, mut received, mut number) = (0, 0, 0);
        let mut spare = Vec::new();
        loop {
            while sent < received + AHEAD * workers.len() {
                let Some(first) = next_grain(raw, number, size)? else { break };
                number = (first / BATCH + 1) * BATCH;
                let job = (first..number.min(size.div_ceil(GRAIN)), spare.pop().unwrap_or_default());
                workers[sent % workers.len()].jobs.send(job).map_err(|_| stopped())?;
                sent += 1;
            }
            if received == sent {
                return Ok(());
            }
            let batch = workers[received % workers.len()].packed.recv().map_err(|_| stopped())??;
            put(&batch)?;
            spare.push(batch);
            received += 1;
        }
    })
}

/// Grains that are packed at once: 1 MiB, as long as threads have to wait for each other seldom.
const BATCH: u64 = 16;
const _: () = assert!(TABLE_ENTRIES.is_multiple_of(BATCH));

/// Batches that a thread has under way.
const AHEAD: usize = 3;

/// Of zlib's levels. On a Debian file system, 5 takes 85 % of the time of 6 and 0.2 % more room; 4 takes 76 % and 1.2 %, 3 takes 69 % and 2.2 %.
const LEVEL: u32 = 5;

type Job = (std::ops::Range<u64>, Batch);

struct Worker {
    jobs: SyncSender<Job>,
    packed: Receiver<Result<Batch, Error>>,
}

/// A thread ends before its jobs only by a panic, which the scope passes on.
fn stopped() -> Error {
    Error::Write(std::io::Error::other("a thread that compresses has ended"))
}

fn work(raw: &dyn Raw, size: u64, todo: &Receiver<Job>, done: &SyncSender<Result<Batch, Error>>) {
    let mut packer = Packer { deflate: Compress::new(Compression::new(LEVEL), true), grain: vec![0; 64 << 10] };
    for (grains, mut batch) in todo {
        let packed = packer.pack(raw, size, grains, &mut batch).map(|()| batch);
        if done.send(packed).is_err() {
            // nobody wants the rest
            return;
        }
    }
}

struct Packer {
    deflate: Compress,
    grain: Vec<u8>,
}

impl Packer {
    fn pack(&mut self, raw: &dyn Raw, size: u64, grains: std::ops::Range<u64>, batch: &mut Batch) -> Result<(), Error> {
        batch.bytes.clear();
        batch.grains.clear();
        batch.end = grains.end;
        let mut number = grains.start;
        while let Some(next) = next_grain(raw, number, size)?.filter(|next| *next < grains.end) {
            number = next;
            read_grain(raw, number, size, &mut self.grain)?;
            if !is_zero(&self.grain) {
                let place = batch.bytes.len() as u64 / SECTOR;
                self.append(number, &mut batch.bytes);
                batch.grains.push(Grain { number, place, checksum: checksum(&self.grain) });
            }
            number += 1;
        }
        Ok(())
    }

    /// Where it lies on the disk, how long it is, and the compressed grain.
    fn append(&mut self, number: u64, bytes: &mut Vec<u8>) {
        let start = bytes.len();
        bytes.extend((number * (GRAIN / SECTOR)).to_le_bytes());
        bytes.extend([0; 4]);
        self.deflate.reset();
        loop {
            // what cannot be compressed becomes a little longer
            bytes.reserve(self.grain.len() + 1024);
            let done = usize::try_from(self.deflate.total_in()).expect("a grain is in memory");
            let status = self.deflate.compress_vec(&self.grain[done..], bytes, FlushCompress::Finish);
            if status.expect("deflate takes all bytes") == Status::StreamEnd {
                break;
            }
        }
        let length = u32::try_from(self.deflate.total_out()).expect("a grain is in memory");
        bytes[start + 8..start + 12].copy_from_slice(&length.to_le_bytes());
        bytes.resize(bytes.len().next_multiple_of(512), 0);
    }
}
