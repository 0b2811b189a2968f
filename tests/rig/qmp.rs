//! QEMU's monitor: orders to a machine that is on. The commands are those of QEMU's QMP reference.

use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;

/// A connection; QEMU serves one at a time.
pub struct Qmp {
    socket: UnixStream,
    answers: BufReader<UnixStream>,
}

impl Qmp {
    pub fn connect(path: &Path) -> Qmp {
        let socket = UnixStream::connect(path).expect("QMP");
        let answers = BufReader::new(socket.try_clone().expect("a socket"));
        let mut qmp = Qmp { socket, answers };
        qmp.line();
        qmp.execute("qmp_capabilities", "{}");
        qmp
    }

    /// Orders something that must be done; `arguments` is JSON. The answer is a line of JSON.
    pub fn execute(&mut self, command: &str, arguments: &str) -> String {
        writeln!(self.socket, "{{\"execute\": \"{command}\", \"arguments\": {arguments}}}").expect("QMP");
        loop {
            let answer = self.line();
            assert!(!answer.contains("\"error\""), "{command} {arguments}: {answer}");
            // events come in between
            if answer.starts_with("{\"return\"") {
                return answer;
            }
        }
    }

    /// Waits until the machine tells of an event.
    pub fn wait_for(&mut self, event: &str) {
        while !self.line().contains(&format!("\"event\": \"{event}\"")) {}
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        assert!(self.answers.read_line(&mut line).expect("an answer") > 0, "QMP is closed");
        line
    }
}
