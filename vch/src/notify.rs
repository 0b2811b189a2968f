//! Tells who started us how we are, by the protocol of sd_notify(3): systemd, and the appliance's PID 1.
//!
//! Nobody may have asked (`NOTIFY_SOCKET` is not set): then all of it does nothing. A message that does not arrive is no reason to stop serving.

use std::ffi::OsStr;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};

/// The one that listens.
#[derive(Debug)]
pub(crate) struct Supervisor {
    socket: Option<(UnixDatagram, SocketAddr)>,
    watchdog: Option<Duration>,
}

impl Supervisor {
    /// As the environment says.
    pub(crate) fn from_environment() -> Supervisor {
        let number = |name| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
        let pid = u64::from(std::process::id());
        let ours = number("WATCHDOG_PID").is_none_or(|asked| asked == pid);
        let microseconds = number("WATCHDOG_USEC").filter(|&time| ours && time > 0);
        let address = std::env::var_os("NOTIFY_SOCKET");
        Supervisor::new(address.as_deref(), microseconds)
    }

    /// `address`: a path, or `@` and the name of an abstract socket; `watchdog` in microseconds.
    fn new(address: Option<&OsStr>, watchdog: Option<u64>) -> Supervisor {
        let socket = address.and_then(|address| {
            let address = match address.as_bytes() {
                [b'@', name @ ..] => SocketAddr::from_abstract_name(name),
                path => SocketAddr::from_pathname(OsStr::from_bytes(path)),
            };
            let socket = UnixDatagram::unbound();
            let opened = address.and_then(|address| Ok((socket?, address)));
            opened.and_then(|(socket, address)| socket.set_nonblocking(true).map(|()| (socket, address))).ok()
        });
        // half of it, as sd_watchdog_enabled(3) recommends
        let watchdog = watchdog.map(|time| Duration::from_micros(time) / 2).filter(|time| !time.is_zero());
        Supervisor { watchdog: watchdog.filter(|_| socket.is_some()), socket }
    }

    /// Everything is up.
    pub(crate) fn ready(&self, status: &str) {
        self.tell(&format!("READY=1\nSTATUS={}", one_line(status)));
    }

    /// It ends in an orderly way.
    pub(crate) fn stopping(&self, status: &str) {
        self.tell(&format!("STOPPING=1\nSTATUS={}", one_line(status)));
    }

    /// Says that it is alive, for ever. It has to run where all else runs: a program that hangs does not say it.
    pub(crate) async fn watch(&self) {
        let Some(period) = self.watchdog else { return std::future::pending().await };
        let mut ticks = interval(period);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            self.tell("WATCHDOG=1");
        }
    }

    fn tell(&self, message: &str) {
        if let Some((socket, address)) = &self.socket {
            // it may have gone, or be slow: that is its own business
            socket.send_to_addr(message.as_bytes(), address).ok();
        }
    }
}

/// A line end would begin another message.
fn one_line(text: &str) -> String {
    text.replace(['\n', '\r'], " ")
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    fn heard(socket: &UnixDatagram) -> String {
        let mut buffer = [0; 4096];
        let count = socket.recv(&mut buffer).unwrap();
        String::from_utf8(buffer[..count].to_vec()).unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn it_is_told_at_a_path_and_at_an_abstract_name() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let name = format!("vch-test-{}", std::process::id());
        let abstract_name = SocketAddr::from_abstract_name(&name).unwrap();
        let listening = [
            (path.clone().into_os_string(), UnixDatagram::bind(&path).unwrap()),
            (format!("@{name}").into(), UnixDatagram::bind_addr(&abstract_name).unwrap()),
        ];
        for (address, socket) in listening {
            socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
            let supervisor = Supervisor::new(Some(&address), Some(4_000_000));
            supervisor.ready("3 VMs\nSTOPPING=1");
            assert_eq!(heard(&socket), "READY=1\nSTATUS=3 VMs STOPPING=1");
            let began = tokio::time::Instant::now();
            tokio::select! {
                () = supervisor.watch() => {}
                () = tokio::time::sleep(Duration::from_secs(5)) => {}
            }
            assert_eq!(began.elapsed(), Duration::from_secs(5));
            supervisor.stopping("by a signal");
            // at 0, 2 and 4 s
            let said = [0; 4].map(|_| heard(&socket));
            assert_eq!(said, ["WATCHDOG=1", "WATCHDOG=1", "WATCHDOG=1", "STOPPING=1\nSTATUS=by a signal"]);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_asked_and_nobody_there() {
        for address in [None, Some("/nonexistent/notify"), Some("@vch-test-nobody"), Some("")] {
            let supervisor = Supervisor::new(address.map(OsStr::new), None);
            let began = Instant::now();
            supervisor.ready("");
            supervisor.stopping("");
            assert!(began.elapsed() < Duration::from_secs(20));
            let watched = tokio::time::timeout(Duration::from_secs(1), supervisor.watch()).await;
            assert!(watched.is_err());
        }
    }
}
