//! Descriptors read back by an XML parser, against the rules of DSP8023: which elements, in which order, with which attributes; and every reference leads somewhere.

use roxmltree::{Document, Node};

use super::*;

const OVF: &str = "http://schemas.dmtf.org/ovf/envelope/1";
const RASD: &str = "http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_ResourceAllocationSettingData";
const VMW: &str = "http://www.vmware.com/schema/ovf";

const HOSTILE: &str = "a & b <c> \"d\" 'e' ]]> &amp; é\n\tf";

fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

fn plain() -> Appliance<'static> {
    Appliance {
        name: "vch",
        version: "1.2.3",
        medium: "vch.iso",
        medium_size: 8_286_208,
        memory_mib: 1024,
        cpus: 2,
        network: "VM Network",
        data_disk: None,
        guestinfo: &[],
        properties: &[],
    }
}

fn written(change: impl FnOnce(&mut Appliance<'_>)) -> String {
    let mut appliance = plain();
    change(&mut appliance);
    text(&appliance).unwrap()
}

fn full() -> String {
    let guestinfo = pairs(&[("guestinfo.note", HOSTILE)]).leak();
    let properties = pairs(&[("plain", "x"), ("vch.net.ip", HOSTILE), ("vch.net.dns", "")]).leak();
    written(|appliance| {
        appliance.data_disk = Some((20 << 30) + 1);
        appliance.network = HOSTILE;
        appliance.guestinfo = guestinfo;
        appliance.properties = properties;
    })
}

type Rule = (&'static str, &'static [&'static str], &'static [&'static str], &'static [&'static str]);

/// What an element of DSP8023 may hold, in this order: `?` at most one, `*` any number, `+` at least one, nothing exactly one; and the attributes that it must
/// have, and may have. `other` is any element of another namespace.
#[rustfmt::skip]
const RULES: [Rule; 19] = [
    ("Envelope", &["References", "DiskSection?", "NetworkSection", "VirtualSystem"], &[], &[]),
    ("References", &["File+"], &[], &[]),
    ("File", &[], &["id", "href"], &["size"]),
    ("DiskSection", &["Info", "Disk+"], &[], &[]),
    ("Disk", &[], &["diskId", "capacity"], &["capacityAllocationUnits", "fileRef", "format"]),
    ("NetworkSection", &["Info", "Network+"], &[], &[]),
    ("Network", &["Description?"], &["name"], &[]),
    ("VirtualSystem", &["Info", "Name?", "OperatingSystemSection", "VirtualHardwareSection", "ProductSection*"], &["id"], &[]),
    ("OperatingSystemSection", &["Info", "Description?"], &["id"], &[]),
    ("VirtualHardwareSection", &["Info", "System?", "Item+", "other*"], &[], &["transport"]),
    ("System", &["other+"], &[], &[]),
    ("Item", &["other+"], &[], &[]),
    ("ProductSection", &["Info", "Product?", "Vendor?", "Version?", "Property*"], &[], &["class"]),
    ("Property", &["Label?", "Description?"], &["key", "type"], &["userConfigurable", "value"]),
    ("Info", &[], &[], &[]),
    ("Name", &[], &[], &[]),
    ("Description", &[], &[], &[]),
    ("Label", &[], &[], &[]),
    ("Product", &[], &[], &[]),
];

fn check(node: Node<'_, '_>) {
    let name = node.tag_name().name();
    if node.tag_name().namespace() != Some(OVF) {
        assert!(node.children().all(|child| child.is_text()), "{name} holds elements");
        return;
    }
    let (_, content, required, optional) = RULES
        .into_iter()
        .find(|(known, ..)| *known == name || (name == "Version" && *known == "Product"))
        .unwrap_or_else(|| panic!("DSP8023 has no {name} here"));
    let attributes: Vec<&str> =
        node.attributes().filter(|one| one.namespace() == Some(OVF)).map(|one| one.name()).collect();
    assert!(required.iter().all(|one| attributes.contains(one)), "{name} lacks one of {required:?}: {attributes:?}");
    let may = |one: &&str| required.contains(one) || optional.contains(one);
    assert!(attributes.iter().all(may), "{name} has {attributes:?}");
    assert!(node.attributes().all(|one| one.namespace().is_some()), "{name} has an attribute without a namespace");
    let mut children = node.children().filter(Node::is_element).peekable();
    for rule in content {
        let (wanted, count) = match rule.char_indices().last() {
            Some((end, count @ ('?' | '*' | '+'))) => (&rule[..end], count),
            _ => (*rule, '1'),
        };
        let mut seen = 0;
        while let Some(child) = children.next_if(|child| match wanted {
            "other" => child.tag_name().namespace() != Some(OVF),
            wanted => child.tag_name().namespace() == Some(OVF) && child.tag_name().name() == wanted,
        }) {
            check(child);
            seen += 1;
        }
        let fits = match count {
            '?' => seen <= 1,
            '*' => true,
            '+' => seen >= 1,
            _ => seen == 1,
        };
        assert!(fits, "{name} holds {seen} of {rule}");
    }
    assert!(children.next().is_none(), "{name} holds what is not in its place");
}

fn child<'a>(node: Node<'a, 'a>, name: &str) -> Option<&'a str> {
    node.children().find(|child| child.tag_name().name() == name)?.text()
}

#[test]
fn it_keeps_the_rules_of_the_schema() {
    for text in [written(|_| ()), full()] {
        check(Document::parse(&text).unwrap_or_else(|error| panic!("{error}: {text}")).root_element());
    }
}

#[test]
fn whatever_is_said_arrives_as_it_was() {
    let text = full();
    let document = Document::parse(&text).unwrap();
    let attribute = |element: &str, holds: (&str, &str, &str), wanted: (&str, &str)| {
        let found = document
            .descendants()
            .find(|node| node.tag_name().name() == element && node.attribute((holds.0, holds.1)) == Some(holds.2));
        found.and_then(|node| node.attribute(wanted)).map(str::to_owned)
    };
    let value = |element, holds, wanted| attribute(element, holds, wanted).unwrap();
    assert_eq!(value("ExtraConfig", (VMW, "key", "guestinfo.note"), (VMW, "value")), HOSTILE);
    assert_eq!(value("Property", (OVF, "key", "ip"), (OVF, "value")), HOSTILE);
    assert_eq!(attribute("Network", (OVF, "name", HOSTILE), (OVF, "name")).unwrap(), HOSTILE);
    let card = document.descendants().find(|node| child(*node, "ResourceSubType") == Some("VmxNet3")).unwrap();
    assert_eq!(child(card, "Connection"), Some(HOSTILE));
    let class = document.descendants().find(|node| node.attribute((OVF, "class")) == Some("vch.net")).unwrap();
    assert_eq!(class.children().filter(|node| node.tag_name().name() == "Property").count(), 2);
}

#[test]
fn what_xml_cannot_say_is_refused() {
    let guestinfo = pairs(&[("guestinfo.note", "a\u{1}b")]);
    let error = text(&Appliance { guestinfo: &guestinfo, ..plain() }).unwrap_err();
    assert!(error.to_string().contains("U+0001"), "{error}");
}

#[test]
fn every_reference_leads_somewhere() {
    let text = full();
    let document = Document::parse(&text).unwrap();
    let attributes = |element: &str, name: &str| -> Vec<String> {
        let nodes = document.descendants().filter(|node| node.tag_name().name() == element);
        nodes.filter_map(|node| node.attribute((OVF, name)).map(str::to_owned)).collect()
    };
    let items: Vec<Node<'_, '_>> = document.descendants().filter(|node| node.tag_name().name() == "Item").collect();
    let ids: Vec<&str> = items.iter().map(|item| child(*item, "InstanceID").unwrap()).collect();
    for (at, id) in ids.iter().enumerate() {
        assert!(!ids[..at].contains(id), "{id} is there twice");
    }
    for item in &items {
        if let Some(parent) = child(*item, "Parent") {
            assert!(ids.contains(&parent), "{parent} is no device");
        }
        if let Some(place) = child(*item, "HostResource") {
            let (kind, id) = place.strip_prefix("ovf:/").unwrap().split_once('/').unwrap();
            let known = if kind == "file" { attributes("File", "id") } else { attributes("Disk", "diskId") };
            assert!(known.contains(&id.to_owned()), "{place} is not there");
        }
        // CIM's schemas are sequences, and theirs is the alphabet's order
        let names: Vec<&str> = item.children().filter(Node::is_element).map(|field| field.tag_name().name()).collect();
        assert!(names.is_sorted(), "{names:?}");
        assert!(item.children().filter(Node::is_element).all(|field| field.tag_name().namespace() == Some(RASD)));
    }
    assert_eq!(attributes("File", "size"), ["8286208"]);
    assert_eq!(attributes("Disk", "capacity"), ["20481"], "MiB, of which the last is begun");
}

#[test]
fn what_is_not_asked_for_is_not_there() {
    let text = written(|_| ());
    for absent in ["DiskSection", "VirtualSCSI", "ovf:transport", "guestinfo", "<Property"] {
        assert!(!text.contains(absent), "{absent} is in {text}");
    }
    assert!(full().contains("ovf:transport=\"com.vmware.guestInfo\""));
}
