//! The text of a `.vmx` file: the hardware that the kernel of containerVMs has drivers for, where vSphere Integrated Containers had it, and guestinfo.
//!
//! It decides every key that is not the guest's. The syntax is [`wire::vmx`]'s; which of these keys no real host has read yet stands in `docs/esxi-checklist.md`.

use anyhow::{Result, bail};
use wire::vmx::{Dictionary, line};

use crate::cli::LinkUri;

/// A machine on ESXi.
pub(super) struct Machine<'a> {
    pub(super) name: &'a str,
    /// What an administrator reads beside the name.
    pub(super) note: String,
    pub(super) hardware: u8,
    pub(super) memory_mib: u64,
    pub(super) cpus: u8,
    /// A file of the directory, or a place on a datastore.
    pub(super) medium: &'a str,
    /// Files of the directory; the first holds the root.
    pub(super) disks: &'a [String],
    pub(super) link: &'a LinkUri,
    /// The output of the main session is kept, on a third serial port.
    pub(super) logs: bool,
    pub(super) card: Option<Card<'a>>,
    /// Only a process with a privileged vsock port is told what is in guestinfo.
    pub(super) guarded: bool,
    pub(super) guestinfo: Dictionary,
}

/// A network card.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Card<'a> {
    pub(super) port_group: &'a str,
    pub(super) mac: [u8; 6],
}

impl Machine<'_> {
    /// The whole file.
    pub(super) fn text(&self) -> Result<String> {
        let size: usize = self.guestinfo.iter().map(|(key, value)| key.len() + value.len()).sum();
        if size > MOST_GUESTINFO
            && let Some((key, value)) = self.guestinfo.iter().max_by_key(|(_, value)| value.len())
        {
            let largest = value.len();
            bail!("guestinfo would take {size} bytes, and ESXi keeps {MOST_GUESTINFO}: {key} alone has {largest}");
        }
        let mut text = Text(String::new());
        self.machine(&mut text);
        self.slots(&mut text);
        self.devices(&mut text);
        self.serial_ports(&mut text);
        self.rules(&mut text);
        text.heading("what to run: docs/guestinfo.md has the keys");
        text.0.push_str(&self.guestinfo.to_string());
        Ok(text.0)
    }

    fn machine(&self, text: &mut Text) {
        text.set(".encoding", "UTF-8");
        text.set("config.version", "8");
        text.set("virtualHW.version", &self.hardware.to_string());
        text.set("displayName", self.name);
        text.set("annotation", &self.note);
        // the newest Linux that hardware 13 knows
        text.set("guestOS", "other3xlinux-64");
        text.set("firmware", "bios");
        text.set("bios.bootOrder", "cdrom");
        // ESXi refuses other amounts
        text.set("memSize", &self.memory_mib.next_multiple_of(MEMORY_UNIT).to_string());
        text.set("numvcpus", &self.cpus.to_string());
        text.yes("mem.hotadd");
        text.yes("vcpu.hotadd");
    }

    /// As VMware numbers them: the first bridge leads to old cards, the others have eight functions each. A slot is device | bus << 5 | function << 10.
    fn slots(&self, text: &mut Text) {
        text.heading("PCI");
        text.yes("pciBridge0.present");
        text.set("pciBridge0.pciSlotNumber", "17");
        for (bridge, slot) in (4..=7).zip(21..) {
            let name = format!("pciBridge{bridge}");
            text.yes(&format!("{name}.present"));
            text.set(&format!("{name}.virtualDev"), "pcieRootPort");
            text.set(&format!("{name}.functions"), "8");
            text.set(&format!("{name}.pciSlotNumber"), &format!("{slot}"));
        }
        text.yes("vmci0.present");
        text.set("vmci0.pciSlotNumber", "32");
        text.yes("hpet0.present");
        text.no("floppy0.present");
    }

    fn devices(&self, text: &mut Text) {
        text.heading("disks: the first is the container's root; the medium is on IDE");
        text.yes("scsi0.present");
        text.set("scsi0.virtualDev", "pvscsi");
        text.set("scsi0.pciSlotNumber", "160");
        for (place, disk) in (0..).filter(|place| *place != CONTROLLERS_PLACE).zip(self.disks) {
            text.yes(&format!("scsi0:{place}.present"));
            text.set(&format!("scsi0:{place}.deviceType"), "scsi-hardDisk");
            text.set(&format!("scsi0:{place}.fileName"), disk);
        }
        text.yes("ide1:0.present");
        text.set("ide1:0.deviceType", "cdrom-image");
        text.set("ide1:0.fileName", self.medium);
        text.yes("ide1:0.startConnected");
        let Some(Card { port_group, mac }) = self.card else { return };
        text.heading("network");
        text.yes("ethernet0.present");
        text.set("ethernet0.virtualDev", "vmxnet3");
        text.set("ethernet0.networkName", port_group);
        text.set("ethernet0.addressType", "static");
        text.set("ethernet0.address", &mac.map(|byte| format!("{byte:02x}")).join(":"));
        if !(mac[..3] == VMWARES_OWN && mac[3] <= LAST_BY_HAND) {
            text.no("ethernet0.checkMACAddress");
        }
        text.set("ethernet0.pciSlotNumber", &FIRST_CARD.to_string());
        text.yes("ethernet0.startConnected");
    }

    fn serial_ports(&self, text: &mut Text) {
        text.heading("serial ports: the link; what kernel and tether say; what the container writes");
        text.yes("serial0.present");
        text.set("serial0.fileType", "network");
        match self.link {
            LinkUri::Direct(uri) => text.set("serial0.fileName", uri),
            LinkUri::Concentrator(uri) => {
                text.set("serial0.fileName", SERVICE);
                text.set("serial0.vspc", uri);
            }
        }
        text.set("serial0.network.endPoint", "client");
        text.yes("serial0.startConnected");
        text.yes("serial0.yieldOnMsrRead");
        text.yes("serial0.hardwareFlowControl");
        text.no("serial0.tryNoRxLoss");
        let log = self.logs.then_some("output.log");
        for (port, file) in (1..).zip(["console.log"].into_iter().chain(log)) {
            text.yes(&format!("serial{port}.present"));
            text.set(&format!("serial{port}.fileType"), "file");
            text.set(&format!("serial{port}.fileName"), file);
            text.yes(&format!("serial{port}.startConnected"));
            text.yes(&format!("serial{port}.yieldOnMsrRead"));
        }
        // nobody is there to be asked whether to write over the files
        text.set("answer.msg.serial.file.open", "Append");
    }

    fn rules(&self, text: &mut Text) {
        text.heading("rules");
        text.yes("disk.EnableUUID");
        text.set("answer.msg.disk.duplicateUUID", "Yes");
        text.no("tools.syncTime");
        text.no("tools.remindInstall");
        text.set("tools.upgrade.policy", "manual");
        if self.guarded {
            // the backdoor is open to any process; a vsock port below 1024 takes a capability, which tether has
            text.yes("guest_rpc.rpci.auth.cmd.info-get");
            text.yes("guest_rpc.rpci.auth.cmd.info-set");
        }
    }
}

/// Lines being collected.
struct Text(String);

impl Text {
    fn heading(&mut self, words: &str) {
        self.0.push_str(&format!("\n# {words}\n"));
    }

    fn set(&mut self, key: &str, value: &str) {
        self.0.push_str(&line(key, value));
        self.0.push('\n');
    }

    fn yes(&mut self, key: &str) {
        self.set(key, "TRUE");
    }

    fn no(&mut self, key: &str) {
        self.set(key, "FALSE");
    }
}

/// Bytes of all of guestinfo, unless `tools.setInfo.sizeLimit` says more.
const MOST_GUESTINFO: usize = 1 << 20;
/// MiB.
const MEMORY_UNIT: u64 = 4;
/// On its own SCSI bus.
const CONTROLLERS_PLACE: usize = 7;
/// The slot of vSphere Integrated Containers' first card: bus 5, function 1. Others follow in steps of 32.
const FIRST_CARD: u32 = 0x4a0;
/// 00:50:56:00:00:00 to 00:50:56:3f:ff:ff are for whoever sets them by hand; ESXi refuses others, unless it is told not to look.
const VMWARES_OWN: [u8; 3] = [0x00, 0x50, 0x56];
const LAST_BY_HAND: u8 = 0x3f;
/// What a concentrator is asked for. Whose link it is the handshake tells.
const SERVICE: &str = "tether";

#[cfg(test)]
mod tests;
