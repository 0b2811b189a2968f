//! ISOs as others see them: the kernel mounts one and its first partition, isoinfo, xorriso and sgdisk look into it.

use std::fs::{self, File};
use std::io::Read as _;
use std::os::unix::fs::{FileExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rig::artifacts;
use rig::images::run as tool;

/// A folder with what a file system can hold, and the ISO of it.
struct Packed {
    dir: tempfile::TempDir,
}

impl Packed {
    fn new(test: &str, options: &[&str], needed: &[&str]) -> Option<Packed> {
        let missing = |program: &&&str| Command::new(program).arg("-version").output().is_err();
        if let Some(program) = needed.iter().find(missing) {
            crate::skip(test, &format!("no {program}"));
            return None;
        }
        let packed = Packed { dir: tempfile::tempdir().unwrap() };
        packed.fill();
        if needed.contains(&"cpio") {
            fill_more(&packed.at("files"));
        }
        tool(
            Command::new(artifacts::program("iso-builder"))
                .arg("pack")
                .args(options)
                .arg(packed.at("files"))
                .arg("-o")
                .arg(packed.iso()),
        );
        Some(packed)
    }

    fn at(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn iso(&self) -> PathBuf {
        self.at("x.iso")
    }

    fn fill(&self) {
        let files = self.at("files");
        let mut deep = files.clone();
        for level in 0..20 {
            deep.push(format!("level {level}"));
        }
        fs::create_dir_all(&deep).unwrap();
        fs::write(deep.join("bottom"), "deep\n").unwrap();
        let file = files.join("f".repeat(253));
        fs::write(&file, "abc\n").unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o4751)).unwrap();
        fs::hard_link(&file, files.join("linked")).unwrap();
        tool(Command::new("touch").args(["-d", "@1000000000"]).arg(&file));
        std::os::unix::fs::symlink("/..//./x", files.join("link")).unwrap();
        fs::create_dir(files.join("many")).unwrap();
        for number in 0..500 {
            fs::write(files.join(format!("many/one of very many files {number}")), number.to_string()).unwrap();
        }
        tool(Command::new("mkfifo").arg(files.join("fifo")));
    }
}

/// What takes xorriso long, or is too much for it.
fn fill_more(files: &Path) {
    std::os::unix::fs::symlink(format!("/..//.{}/x", "/component".repeat(400)), files.join("long")).unwrap();
    let holes = File::create(files.join("large")).unwrap();
    holes.set_len(LARGE).unwrap();
    holes.write_all_at(b"middle", (4 << 30) - 3).unwrap();
    holes.write_all_at(b"end", LARGE - 3).unwrap();
}

/// Two records are needed for it.
const LARGE: u64 = (4 << 30) + 2051;

/// What the kernel is asked of what it has mounted.
const QUESTIONS: &str = r#"
cd "$1"
cat "level 0/level 1/level 2/level 3/level 4/level 5/level 6/level 7/level 8/level 9/level 10/level 11/level 12/level 13/level 14/level 15/level 16/level 17/level 18/level 19/bottom"
stat -c '%a %h %s %Y' fff* linked
cat fff* linked
readlink link
readlink long | wc -c
readlink long | head -c 20; echo
ls many | wc -l
cat many/* | wc -c
cat "many/one of very many files 234"; echo
stat -c %s large
dd if=large bs=1 skip=4294967290 count=12 2>/dev/null | tr '\0' .; echo
dd if=large bs=1 skip=4294969343 count=4 2>/dev/null | tr '\0' .; echo
stat -c %F fifo
ls | wc -l
cd /
"#;

/// Their answers.
fn answers() -> String {
    let numbers: usize = (0..500).map(|number: usize| number.to_string().len()).sum();
    format!(
        "deep\n4751 2 4 1000000000\n4751 2 4 1000000000\nabc\nabc\n/..//./x\n4009\n/..//./component/com\n\
         500\n{numbers}\n234\n{LARGE}\n...middle...\n.end\nfifo\n8\n"
    )
}

/// Boots the kernel with busybox and a script, the ISO being its disk, and returns what the script says.
fn ask(dir: &Path, iso: &Path, script: &str) -> String {
    let (root, archive) = (dir.join("root"), dir.join("archive"));
    fs::create_dir_all(root.join("bin")).unwrap();
    for folder in ["dev", "m", "proc"] {
        fs::create_dir_all(root.join(folder)).unwrap();
    }
    fs::copy("/bin/busybox", root.join("bin/busybox")).unwrap();
    let script = format!(
        "#!/bin/busybox sh\nexport PATH=/bin\n/bin/busybox --install -s /bin\nmount -t devtmpfs none /dev\n\
         exec >/dev/ttyS0 2>&1 </dev/null\nstty raw -F /dev/ttyS0\necho BEGIN\n{script}\necho END\npoweroff -f\n"
    );
    fs::write(root.join("init"), script).unwrap();
    fs::set_permissions(root.join("init"), fs::Permissions::from_mode(0o755)).unwrap();
    let pack = format!("cd '{}' && find . | cpio -o -H newc --quiet >'{}'", root.display(), archive.display());
    tool(Command::new("sh").args(["-c", &pack]));
    let mut qemu = Command::new("qemu-system-x86_64")
        .args("-accel tcg -cpu max -machine q35 -nodefaults -no-user-config -display none -no-reboot -m 256".split(' '))
        // a busy host is late with the timer's ticks, and the kernel that counts them would panic
        .args(["-append", "quiet panic=-1 console=ttyS0 no_timer_check", "-serial", "stdio"])
        .arg("-kernel")
        .arg(artifacts::dist("kernel"))
        .arg("-initrd")
        .arg(&archive)
        .args(["-drive", &format!("if=virtio,format=raw,readonly=on,file={}", iso.display())])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .expect("qemu-system-x86_64");
    let mut out = qemu.stdout.take().unwrap();
    let reader = std::thread::spawn(move || {
        let mut said = String::new();
        out.read_to_string(&mut said).map(|_| said)
    });
    let began = Instant::now();
    while !reader.is_finished() && began.elapsed() < Duration::from_secs(180) {
        std::thread::sleep(Duration::from_millis(20));
    }
    qemu.kill().ok();
    qemu.wait().unwrap();
    let said = reader.join().unwrap().unwrap().replace('\r', "");
    let script = said.split_once("BEGIN\n").and_then(|(_, rest)| rest.split_once("END\n"));
    script.unwrap_or_else(|| panic!("the script did not end: {said}")).0.to_owned()
}

#[test]
fn the_kernel_shows_what_was_packed_on_the_disk_and_on_its_first_partition() {
    let test = "the_kernel_shows_what_was_packed_on_the_disk_and_on_its_first_partition";
    let efi = tempfile::NamedTempFile::new().unwrap();
    efi.as_file().set_len(3 << 20).unwrap();
    efi.as_file().write_all_at(b"the system partition", 0).unwrap();
    let options = ["--joliet", "--efi", efi.path().to_str().unwrap()];
    let Some(packed) = Packed::new(test, &options, &["cpio"]) else { return };
    if !Path::new("/bin/busybox").exists() {
        return crate::skip(test, "no /bin/busybox");
    }
    let script = "ask() { mount -t iso9660 -o ro $1 /m && questions /m; umount /m; }\n\
                  ask /dev/vda; echo ---; ask /dev/vda1; echo ---; head -c 20 /dev/vda2; echo; ls -1 /dev/vda*";
    let script = format!("questions() {{\n{QUESTIONS}\n}}\n{script}");
    let said = ask(packed.dir.path(), &packed.iso(), &script);
    let answers = answers();
    let expected = format!("{answers}---\n{answers}---\nthe system partition\n/dev/vda\n/dev/vda1\n/dev/vda2\n");
    assert_eq!(said, expected);
}

#[test]
fn isoinfo_reads_both_kinds_of_names() {
    let Some(packed) = Packed::new("isoinfo_reads_both_kinds_of_names", &["--joliet"], &["isoinfo"]) else { return };
    let isoinfo = |names: &str| tool(Command::new("isoinfo").args([names, "-f", "-i"]).arg(packed.iso()));
    let listed = isoinfo("-R");
    for name in ["/linked", "/link", "/fifo", &format!("/{}", "f".repeat(253)), "/many/one of very many files 499"] {
        assert!(listed.lines().any(|line| line == name), "{name} is not in {listed}");
    }
    assert_eq!(listed.lines().filter(|line| line.starts_with("/many/")).count(), 500);
    let joliet = isoinfo("-J");
    for name in ["/linked", "/many/one of very many files 499"] {
        let found = joliet.lines().any(|line| line.strip_suffix(";1").unwrap_or(line) == name);
        assert!(found, "{name} is not in {joliet}");
    }
    assert!(!joliet.contains("fifo"), "Joliet has no such thing");
    let about = tool(Command::new("isoinfo").args(["-d", "-i"]).arg(packed.iso()));
    assert!(about.contains("Volume id: DATA") && about.contains("Rock Ridge"), "{about}");
}

#[test]
fn sgdisk_finds_no_fault_with_the_partitions() {
    let efi = tempfile::NamedTempFile::new().unwrap();
    efi.as_file().set_len(70_000).unwrap();
    let options = ["--efi", efi.path().to_str().unwrap(), "--volume", "SYSTEM"];
    let needed = ["sgdisk", "xorriso"];
    let Some(packed) = Packed::new("sgdisk_finds_no_fault_with_the_partitions", &options, &needed) else { return };
    let verified = tool(Command::new("sgdisk").arg("-v").arg(packed.iso()));
    assert!(verified.contains("No problems found"), "{verified}");
    let listed = tool(Command::new("sgdisk").arg("-p").arg(packed.iso()));
    assert!(listed.contains("EF00") && listed.contains("0700"), "{listed}");
    let report = ["-report_el_torito", "plain", "-report_system_area", "plain"];
    let report = tool(Command::new("xorriso").arg("-indev").arg(packed.iso()).args(report));
    let report = report.split_whitespace().collect::<Vec<_>>().join(" ");
    for line in
        ["El Torito boot img : 1 UEFI y none 0x0000 0x00 137", "MBR protective-msdos-label", "GPT partition name"]
    {
        assert!(report.contains(line), "{line:?} is not in {report}");
    }
}
