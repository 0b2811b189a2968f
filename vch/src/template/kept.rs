//! stub
use anyhow::Result;
use std::fs::File;
#[derive(Debug)]
pub struct Template {
    pub memory: File,
    pub state: File,
}
impl Template {
    pub fn new_memory(bytes: u64) -> Result<File> {
        let f: File =
            rustix::fs::memfd_create("m", rustix::fs::MemfdFlags::ALLOW_SEALING | rustix::fs::MemfdFlags::CLOEXEC)?
                .into();
        f.set_len(bytes)?;
        Ok(f)
    }
    pub fn new_state() -> Result<File> {
        Ok(rustix::fs::memfd_create("s", rustix::fs::MemfdFlags::ALLOW_SEALING | rustix::fs::MemfdFlags::CLOEXEC)?
            .into())
    }
    pub fn seal(memory: File, state: File, _kind: &str, _number: &[u8; 16]) -> Result<Template> {
        use rustix::fs::SealFlags;
        for f in [&memory, &state] {
            rustix::fs::fcntl_add_seals(f, SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE)?;
        }
        Ok(Template { memory, state })
    }
    pub fn check(&self, _kind: &str) -> Result<()> {
        Ok(())
    }
    pub fn files(&self) -> Result<crate::vm::qemu::Files> {
        use std::os::fd::AsRawFd;
        let open = |f: &File| File::options().read(true).open(format!("/proc/self/fd/{}", f.as_raw_fd()));
        Ok(crate::vm::qemu::Files { state: Some(open(&self.state)?), memory: Some(open(&self.memory)?) })
    }
}
