//! Where the container's files are: its root, and what is mounted in it.

/// The container's root file system.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Root {
    /// Read-only disks, the lowest first; `top` lies over them. None means one merged disk, labelled [`ROOT_LABEL`], which is the root itself.
    pub layers: Vec<DiskId>,
    /// What takes what the container writes, where there are layers.
    pub top: Top,
    /// The container can write to its mounts only.
    pub read_only: bool,
}

/// What lies over read-only layers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Top {
    /// A disk of its own, which outlives the boot.
    Disk(DiskId),
    /// Memory, gone with the boot, of at most so many bytes; 0 is half of the machine's.
    Memory(u64),
}

/// How a disk is known, whatever its place.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum DiskId {
    /// The label of its file system.
    Label(String),
    /// The serial number that the hypervisor gave the disk.
    Serial(String),
    /// The UUID of its file system: 36 characters, lower case.
    Uuid(String),
}

impl DiskId {
    /// What it is known by (`label`, `serial` or `uuid`), and the text.
    pub fn parts(&self) -> (&'static str, &str) {
        match self {
            DiskId::Label(label) => ("label", label),
            DiskId::Serial(serial) => ("serial", serial),
            DiskId::Uuid(uuid) => ("uuid", uuid),
        }
    }
}

/// As a person says it: `label "data"`.
impl std::fmt::Display for DiskId {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (kind, text) = self.parts();
        write!(formatter, "{kind} {text:?}")
    }
}

/// The label of the disk that holds the container's root file system.
pub const ROOT_LABEL: &str = "containerfs";

/// Something that is mounted in the container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// Its name among the mounts of the spec.
    pub name: String,
    /// What is mounted.
    pub source: Source,
    /// Where: absolute, without `.` and `..`; made if it does not exist.
    pub destination: String,
    /// The container cannot write there.
    pub read_only: bool,
    /// A volume that is empty is filled, once, with what the image has at `destination`.
    pub seed: bool,
}

/// What a mount mounts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// The file system of a disk.
    Disk(DiskId),
    /// A directory of a file server: nfs(5).
    Nfs {
        /// A name or an address.
        host: String,
        /// Absolute.
        path: String,
        /// As `mount -o` takes them.
        options: String,
    },
    /// Memory: tmpfs(5).
    Memory {
        /// The most bytes that it takes; 0 is half of the machine's.
        size: u64,
        /// Permissions of its top directory.
        mode: u32,
        /// Programs in it can be executed.
        exec: bool,
    },
}

impl Default for Root {
    fn default() -> Root {
        Root { layers: Vec::new(), top: Top::Memory(0), read_only: false }
    }
}
