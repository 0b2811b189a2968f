//! When the host wants its memory back: as soon as processes wait for it, or little of it is left.
//!
//! It looks at the whole host: that a control group has reached a limit of its own is not told apart, or not seen.

use std::fs::{self, File};
use std::io::{self, Write};
use std::time::Duration;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Waits until memory is short.
pub(super) async fn short() {
    if let Ok(stalls) = stalls()
        && let Ok(told) = stalls.ready(Interest::PRIORITY).await
        && told.ready().is_priority()
    {
        return;
    }
    // the kernel does not tell, so that it is looked at
    while !fs::read_to_string("/proc/meminfo").is_ok_and(|text| is_short(&text)) {
        tokio::time::sleep(LOOK).await;
    }
}

/// A descriptor that is ready when processes have waited for memory for long.
#[expect(deprecated, reason = "a file that is owned stays what it is: what the note warns of cannot be")]
fn stalls() -> io::Result<AsyncFd<File>> {
    let mut file = File::options().read(true).write(true).open("/proc/pressure/memory")?;
    file.write_all(STALL)?;
    AsyncFd::with_interest(file, Interest::PRIORITY)
}

/// Whether less than a tenth of the memory is available. What says nothing of it is no reason to fear for it.
fn is_short(meminfo: &str) -> bool {
    let value = |name| {
        let line = meminfo.lines().find_map(|line| line.strip_prefix(name))?;
        line.trim().trim_end_matches(" kB").parse::<u64>().ok()
    };
    matches!((value("MemAvailable:"), value("MemTotal:")), (Some(available), Some(total)) if available < total / 10)
}

/// Some process waited for 0.3 s of 2 s. Without rights, the kernel takes only windows that are multiples of 2 s.
const STALL: &[u8] = b"some 300000 2000000\n";
/// Between two looks.
const LOOK: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_is_less_than_a_tenth() {
        let check = |available: u64, short: bool| {
            let text = format!("MemTotal:     1000 kB\nMemFree:        1 kB\nMemAvailable:  {available} kB\n");
            assert_eq!(is_short(&text), short, "{available}");
        };
        check(0, true);
        check(99, true);
        check(100, false);
        check(1000, false);
        for text in ["", "MemTotal: 1000 kB\n", "MemAvailable: 1 kB\n", "MemTotal: x kB\nMemAvailable: 1 kB\n"] {
            assert!(!is_short(text), "{text}");
        }
    }

    #[tokio::test]
    async fn nobody_is_pressed_at_once() {
        // a kernel without PSI refuses, and one that has it is silent until something happens
        if let Ok(stalls) = stalls() {
            tokio::time::timeout(Duration::from_millis(50), stalls.ready(Interest::PRIORITY)).await.unwrap_err();
        }
    }
}
