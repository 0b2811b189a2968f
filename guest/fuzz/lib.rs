//! What must hold for any bytes at all. The fuzz targets call these functions, and so does `guest/tests/seeds.rs` in every test run.

use guest::toolbox::hgfs::{Answer, Call, Packet, Status};
use guest::toolbox::{Operation, Output, Toolbox, VixError};
use guest::vmware::MOST_SENT;
use wire::handshake::LinkKey;

/// Whatever a host asks is answered once, in one message, and nobody gets an operation done without the key.
pub fn toolbox(bytes: &[u8]) {
    let key = LinkKey::new(std::array::from_fn(|at| u8::try_from(at).expect("32 is less than 256")));
    let mut known = Toolbox::new("c1", &key, "fuzz");
    let mut stranger = Toolbox::new("c1", &LinkKey::new([9; 32]), "fuzz");
    let answers = |output: &Output| match output {
        Output::Answer(answer) => {
            assert!(
                [&b"OK "[..], b"ERROR "].iter().any(|start| answer.starts_with(start)) && answer.len() <= MOST_SENT
            );
            1
        }
        Output::Operate(operation, reply) => {
            assert!(reply.answer(&Err(VixError::Failed)).starts_with(b"OK 1 0 "));
            if let Operation::Transfer(packet) = operation {
                // the longest that may be read, or an error
                let outcome = match &packet.call {
                    Ok(Call::Read { count, .. }) => Ok(Answer::Read(vec![0; *count])),
                    _ => Err(Status::Generic),
                };
                assert!(reply.answer(&Ok(packet.answer(&outcome))).len() <= MOST_SENT);
            }
            match operation {
                Operation::Download(path)
                | Operation::Upload { path, .. }
                | Operation::Transfer(Packet { call: Ok(Call::Open { path, .. }), .. }) => {
                    assert!(path.starts_with('/') && !path.contains('\0') && !path.split('/').any(|name| name == ".."));
                }
                _ => {}
            }
            1
        }
        Output::Ask(request) => {
            assert!(request.len() <= MOST_SENT);
            0
        }
        Output::Power(_) => 0,
    };
    for toolbox in [&mut known, &mut stranger] {
        assert_eq!(toolbox.handle(bytes).iter().map(answers).sum::<usize>(), 1);
        let mut news = 0;
        while toolbox.poll_news().is_some() {
            toolbox.heard(false);
            news += 1;
        }
        assert!(news < 20);
    }
    assert!(!stranger.handle(bytes).iter().any(|output| matches!(output, Output::Operate(..))));
}
