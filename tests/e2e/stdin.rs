//! Input arrives whole, ends where it ends, and nobody waits for input that nobody wants.

use rig::vch::{busybox, shell};

#[test]
fn sort_gets_its_lines_and_their_end() {
    let lines: String = (0..20_000).map(|i| format!("{}\n", (i * 7919) % 20_000)).collect();
    let expected: String = (0..20_000).map(|i| format!("{i}\n")).collect();
    let output = busybox(&["-i"], &["sort", "-n"]).stdin(lines).output();
    assert!(output.success() == expected, "sorted lines differ");
}

#[test]
fn bytes_come_back_as_they_went() {
    for link in ["virtio", "serial"] {
        let size = if link == "virtio" { 5_000_000 } else { 200_000 };
        let bytes: Vec<u8> = (0..=255).rev().cycle().take(size).collect();
        let output = busybox(&["-i", "--link", link], &["cat"]).stdin(bytes.clone()).output();
        assert!(output.code == 0 && output.stdout == bytes, "{link}: {} bytes of {size}", output.stdout.len());
    }
}

#[test]
fn without_i_the_input_is_empty() {
    let output = shell(&[], "cat; echo end").stdin("not for the container").output();
    assert_eq!(output.success(), "end\n");
}

#[test]
fn input_that_nobody_reads_holds_nothing_up() {
    let output = shell(&["-i"], "head -c 5; exec <&-; sleep 0.3; echo; echo end").stdin(vec![b'x'; 3_000_000]).output();
    assert_eq!(output.success(), "xxxxx\nend\n");
}
