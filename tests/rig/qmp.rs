//! What a test asks of QEMU while a machine runs: QEMU's QMP reference.

use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;

use serde_json::{Value, json};

/// Gives commands, each of which must succeed.
pub fn order(socket: &Path, commands: &[(&str, Value)]) {
    let mut qmp = UnixStream::connect(socket).expect("QMP");
    let mut answers = BufReader::new(qmp.try_clone().expect("a socket"));
    let mut answer = String::new();
    answers.read_line(&mut answer).expect("a greeting");
    let begin = [("qmp_capabilities", json!({}))];
    for (command, arguments) in begin.iter().chain(commands) {
        writeln!(qmp, "{}", json!({ "execute": command, "arguments": arguments })).expect("QMP");
        answer.clear();
        // events come in between
        while !answer.contains("\"return\"") {
            answer.clear();
            assert!(answers.read_line(&mut answer).expect("an answer") > 0, "{command}: QMP is closed");
            assert!(!answer.contains("\"error\""), "{command}: {answer}");
        }
    }
}
