//! The text of an OVF descriptor: DMTF DSP0243 1.1, whose schema is DSP8023, with VMware's extensions where it has no word for a thing.
//!
//! Elements of `rasd` and `vssd` stand in the order of CIM's schemas, which is that of the alphabet; an importer may refuse another.

use std::collections::BTreeMap;

use anyhow::{Result, bail};

/// What the appliance is.
pub(super) struct Appliance<'a> {
    pub(super) name: &'a str,
    pub(super) version: &'a str,
    /// The file in the package.
    pub(super) medium: &'a str,
    pub(super) medium_size: u64,
    pub(super) memory_mib: u64,
    pub(super) cpus: u8,
    pub(super) network: &'a str,
    /// Bytes.
    pub(super) data_disk: Option<u64>,
    /// Keys and values that the guest can read.
    pub(super) guestinfo: &'a [(String, String)],
    /// What is asked of who deploys it, and what it is otherwise.
    pub(super) properties: &'a [(String, String)],
}

/// The whole descriptor.
pub(super) fn text(appliance: &Appliance<'_>) -> Result<String> {
    let mut xml = Xml { text: "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n".into(), depth: 0 };
    let namespaces = NAMESPACES.map(|(name, uri)| (name, uri.to_owned()));
    xml.within("Envelope", &namespaces, |xml| {
        envelope(xml, appliance)?;
        system(xml, appliance)
    })?;
    Ok(xml.text)
}

fn envelope(xml: &mut Xml, appliance: &Appliance<'_>) -> Result<()> {
    xml.within("References", &[], |xml| {
        let size = appliance.medium_size.to_string();
        xml.empty("File", &attributes(&[("ovf:id", MEDIUM), ("ovf:href", appliance.medium), ("ovf:size", &size)]))
    })?;
    if let Some(size) = appliance.data_disk {
        xml.within("DiskSection", &[], |xml| {
            xml.leaf("Info", "Disks that are made as the appliance is deployed")?;
            // without a reference to a file it is empty
            let capacity = size.div_ceil(MIB).to_string();
            xml.empty(
                "Disk",
                &attributes(&[
                    ("ovf:diskId", DATA),
                    ("ovf:capacity", &capacity),
                    ("ovf:capacityAllocationUnits", "byte * 2^20"),
                    ("ovf:format", STREAM_OPTIMIZED),
                ]),
            )
        })?;
    }
    xml.within("NetworkSection", &[], |xml| {
        xml.leaf("Info", "The network that clients and containerVMs reach the appliance through")?;
        xml.within("Network", &attributes(&[("ovf:name", appliance.network)]), |xml| {
            xml.leaf("Description", "Management network")
        })
    })
}

fn system(xml: &mut Xml, appliance: &Appliance<'_>) -> Result<()> {
    xml.within("VirtualSystem", &attributes(&[("ovf:id", appliance.name)]), |xml| {
        xml.leaf("Info", "A Virtual Container Host")?;
        xml.leaf("Name", appliance.name)?;
        // DSP0243's number for a 64-bit Linux, and VMware's name for the kind
        let system = attributes(&[("ovf:id", "101"), ("vmw:osType", "other3xLinux64Guest")]);
        xml.within("OperatingSystemSection", &system, |xml| xml.leaf("Info", "The guest's operating system"))?;
        let transport = attributes(&[("ovf:transport", "com.vmware.guestInfo")]);
        let asks = if appliance.properties.is_empty() { &[][..] } else { &transport };
        xml.within("VirtualHardwareSection", asks, |xml| hardware(xml, appliance))?;
        product(xml, appliance)
    })
}

fn hardware(xml: &mut Xml, appliance: &Appliance<'_>) -> Result<()> {
    xml.leaf("Info", "Virtual hardware")?;
    xml.within("System", &[], |xml| {
        xml.leaf("vssd:ElementName", "Virtual Hardware Family")?;
        xml.leaf("vssd:InstanceID", "0")?;
        xml.leaf("vssd:VirtualSystemIdentifier", appliance.name)?;
        xml.leaf("vssd:VirtualSystemType", HARDWARE)
    })?;
    let cpus = appliance.cpus.to_string();
    let memory = appliance.memory_mib.to_string();
    let (medium, data) = (format!("ovf:/file/{MEDIUM}"), format!("ovf:/disk/{DATA}"));
    let mut items: Vec<Item<'_>> = vec![
        (CPU, vec![("AllocationUnits", "hertz * 10^6"), ("ElementName", "processors"), ("VirtualQuantity", &cpus)]),
        (MEMORY, vec![("AllocationUnits", "byte * 2^20"), ("ElementName", "memory"), ("VirtualQuantity", &memory)]),
        (IDE, vec![("Address", "1"), ("ElementName", "IDE 1")]),
        (
            CDROM,
            vec![
                ("AddressOnParent", "0"),
                ("AutomaticAllocation", "true"),
                ("ElementName", "medium"),
                ("HostResource", &medium),
                ("Parent", IDE.id),
                ("ResourceSubType", "vmware.cdrom.iso"),
            ],
        ),
        (
            CARD,
            vec![
                ("AddressOnParent", "7"),
                ("AutomaticAllocation", "true"),
                ("Connection", appliance.network),
                ("ElementName", "network card"),
                ("ResourceSubType", "VmxNet3"),
            ],
        ),
    ];
    if appliance.data_disk.is_some() {
        items.push((SCSI, vec![("Address", "0"), ("ElementName", "SCSI 0"), ("ResourceSubType", "VirtualSCSI")]));
        items.push((
            DISK,
            vec![("AddressOnParent", "0"), ("ElementName", "data"), ("HostResource", &data), ("Parent", SCSI.id)],
        ));
    }
    for (kind, fields) in items {
        let mut fields: BTreeMap<&str, &str> = fields.into_iter().collect();
        fields.extend([("InstanceID", kind.id), ("ResourceType", kind.resource_type)]);
        xml.within("Item", &[], |xml| {
            fields.iter().try_for_each(|(name, value)| xml.leaf(&format!("rasd:{name}"), value))
        })?;
    }
    let optional = |key, value| attributes(&[("ovf:required", "false"), ("vmw:key", key), ("vmw:value", value)]);
    for (key, value) in [("cpuHotAddEnabled", "true"), ("memoryHotAddEnabled", "true"), ("firmware", "bios")] {
        xml.empty("vmw:Config", &optional(key, value))?;
    }
    xml.empty("vmw:ExtraConfig", &optional("disk.EnableUUID", "TRUE"))?;
    for (key, value) in appliance.guestinfo {
        xml.empty("vmw:ExtraConfig", &optional(key, value))?;
    }
    Ok(())
}

/// One section for each class of properties: a class is what stands before the last dot of a key.
fn product(xml: &mut Xml, appliance: &Appliance<'_>) -> Result<()> {
    let mut classes: BTreeMap<&str, Vec<(&str, &str)>> = BTreeMap::from([("", Vec::new())]);
    for (key, value) in appliance.properties {
        let (class, key) = key.rsplit_once('.').unwrap_or(("", key));
        classes.entry(class).or_default().push((key, value));
    }
    for (class, properties) in classes {
        let named = attributes(&[("ovf:class", class)]);
        xml.within("ProductSection", if class.is_empty() { &[] } else { &named }, |xml| {
            xml.leaf("Info", "What runs, and what it is told")?;
            if class.is_empty() {
                xml.leaf("Product", "Virtual Container Host")?;
                xml.leaf("Version", appliance.version)?;
            }
            for (key, value) in properties {
                let property = attributes(&[
                    ("ovf:key", key),
                    ("ovf:type", "string"),
                    ("ovf:userConfigurable", "true"),
                    ("ovf:value", value),
                ]);
                xml.within("Property", &property, |xml| xml.leaf("Label", key))?;
            }
            Ok(())
        })?;
    }
    Ok(())
}

/// A device: what others refer to it by, and CIM's number for its kind.
#[derive(Clone, Copy)]
struct Kind {
    id: &'static str,
    resource_type: &'static str,
}

type Item<'a> = (Kind, Vec<(&'a str, &'a str)>);

/// XML being written. Names are ours; texts and the values of attributes are anybody's.
struct Xml {
    text: String,
    depth: usize,
}

impl Xml {
    fn within(
        &mut self,
        name: &str,
        attributes: &[(&str, String)],
        inner: impl FnOnce(&mut Xml) -> Result<()>,
    ) -> Result<()> {
        self.tag(name, attributes, ">\n")?;
        self.depth += 1;
        inner(self)?;
        self.depth -= 1;
        self.indent();
        self.text.push_str(&format!("</{name}>\n"));
        Ok(())
    }

    fn leaf(&mut self, name: &str, text: &str) -> Result<()> {
        self.tag(name, &[], ">")?;
        self.text.push_str(&escape(text)?);
        self.text.push_str(&format!("</{name}>\n"));
        Ok(())
    }

    fn empty(&mut self, name: &str, attributes: &[(&str, String)]) -> Result<()> {
        self.tag(name, attributes, "/>\n")
    }

    fn tag(&mut self, name: &str, attributes: &[(&str, String)], end: &str) -> Result<()> {
        self.indent();
        self.text.push_str(&format!("<{name}"));
        for (key, value) in attributes {
            self.text.push_str(&format!(" {key}=\"{}\"", escape(value)?));
        }
        self.text.push_str(end);
        Ok(())
    }

    fn indent(&mut self) {
        self.text.push_str(&"  ".repeat(self.depth));
    }
}

fn attributes<'a>(pairs: &[(&'a str, &str)]) -> Vec<(&'a str, String)> {
    pairs.iter().map(|(name, value)| (*name, (*value).to_owned())).collect()
}

/// A text as it stands between tags or quotes. White space that a parser would make a blank of is written by its number.
fn escape(text: &str) -> Result<String> {
    let mut escaped = String::with_capacity(text.len());
    for char in text.chars() {
        match char {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\t' | '\n' | '\r' => escaped.push_str(&format!("&#{};", u32::from(char))),
            '\0'..='\x1f' | '\u{fffe}' | '\u{ffff}' => {
                bail!(
                    "the character U+{:04X} cannot be in an OVF descriptor: XML has no way to write it",
                    u32::from(char)
                )
            }
            char => escaped.push(char),
        }
    }
    Ok(escaped)
}

const NAMESPACES: [(&str, &str); 5] = [
    ("xmlns", "http://schemas.dmtf.org/ovf/envelope/1"),
    ("xmlns:ovf", "http://schemas.dmtf.org/ovf/envelope/1"),
    ("xmlns:rasd", "http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_ResourceAllocationSettingData"),
    ("xmlns:vmw", "http://www.vmware.com/schema/ovf"),
    ("xmlns:vssd", "http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_VirtualSystemSettingData"),
];
/// ESXi 6.5 and later.
const HARDWARE: &str = "vmx-13";
/// A disk must name a format, an empty one too.
const STREAM_OPTIMIZED: &str = "http://www.vmware.com/interfaces/specifications/vmdk.html#streamOptimized";
const MEDIUM: &str = "medium";
const DATA: &str = "data";
const MIB: u64 = 1 << 20;

// DSP0243, table of resource types
const CPU: Kind = Kind { id: "1", resource_type: "3" };
const MEMORY: Kind = Kind { id: "2", resource_type: "4" };
const IDE: Kind = Kind { id: "3", resource_type: "5" };
const CDROM: Kind = Kind { id: "4", resource_type: "15" };
const CARD: Kind = Kind { id: "5", resource_type: "10" };
const SCSI: Kind = Kind { id: "6", resource_type: "6" };
const DISK: Kind = Kind { id: "7", resource_type: "17" };

#[cfg(test)]
mod tests;
