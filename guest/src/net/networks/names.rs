//! The texts of `/etc/hosts` and `/etc/resolv.conf`: what the spec and the networks say, and what the image brought.

use std::collections::BTreeSet;
use std::io;
use std::net::IpAddr;

/// What every machine knows without asking.
const LOCAL: [(&str, &str); 6] = [
    ("127.0.0.1", "localhost"),
    ("::1", "localhost ip6-localhost ip6-loopback"),
    ("fe00::", "ip6-localnet"),
    ("ff00::", "ip6-mcastprefix"),
    ("ff02::1", "ip6-allnodes"),
    ("ff02::2", "ip6-allrouters"),
];

/// resolv.conf(5): `MAXNS`.
const MOST_SERVERS: usize = 3;

/// The machine's own name.
#[derive(Clone, Debug, Default)]
#[allow(missing_docs)]
pub struct HostName {
    pub name: String,
    pub domain: Option<String>,
}

impl HostName {
    /// Has the kernel know it. An error comes with what could not be done.
    pub(super) fn set(&self) -> Result<(), (String, io::Error)> {
        let HostName { name, domain } = self;
        nix::unistd::sethostname(name).map_err(|errno| (format!("cannot name the host {name:?}"), errno.into()))?;
        let Some(domain) = domain else { return Ok(()) };
        std::fs::write("/proc/sys/kernel/domainname", domain)
            .map_err(|error| (format!("cannot set the domain {domain:?}"), error))
    }

    /// As `/etc/hostname` has it: docker writes the whole name.
    pub fn whole(&self) -> String {
        match &self.domain {
            Some(domain) => format!("{}.{domain}", self.name),
            None => self.name.clone(),
        }
    }

    fn line(&self) -> String {
        match &self.domain {
            Some(_) => format!("{} {}", self.whole(), self.name),
            None => self.name.clone(),
        }
    }
}

/// `/etc/hosts`: ours, then the image's own lines. A name of ours means what we say, wherever the image has it too: glibc takes all lines of a name together.
pub(super) fn hosts(host: &HostName, own: &[(IpAddr, &str)], given: &[(IpAddr, String)], image: &str) -> String {
    let mut text = String::new();
    let mut names = BTreeSet::new();
    let mut line = |address: &str, line: &str| {
        text.extend([address, "\t", line, "\n"]);
        names.extend(line.split(' ').map(str::to_owned));
    };
    LOCAL.iter().for_each(|(address, names)| line(address, names));
    if own.is_empty() {
        line("127.0.1.1", &host.line());
    }
    for (at, (address, network)) in own.iter().enumerate() {
        // a network may have several names
        if at == 0 || own[at - 1].0 != *address {
            line(&address.to_string(), &host.line());
        }
        line(&address.to_string(), &format!("{network}.localhost"));
    }
    given.iter().for_each(|(address, name)| line(&address.to_string(), name));
    for line in image.lines() {
        let mut words = line.split('#').next().unwrap_or_default().split_whitespace();
        let Some(address) = words.next() else { continue };
        let theirs: Vec<&str> = words.filter(|word| !names.contains(*word)).collect();
        if !theirs.is_empty() {
            text.extend([address, "\t", &theirs.join(" "), "\n"]);
        }
    }
    text
}

/// `/etc/resolv.conf`. Where nobody says anything, the image's own.
pub(super) fn resolv(dns: &[IpAddr], search: &[&String], options: &[String], image: &str) -> String {
    if dns.is_empty() && search.is_empty() && options.is_empty() {
        return image.to_owned();
    }
    let mut text = String::new();
    for server in unique(dns).into_iter().take(MOST_SERVERS) {
        text.extend(["nameserver ", &server.to_string(), "\n"]);
    }
    if !search.is_empty() {
        let words: Vec<&str> = unique(search).into_iter().map(|word| word.as_str()).collect();
        text.extend(["search ", &words.join(" "), "\n"]);
    }
    if !options.is_empty() {
        text.extend(["options ", &options.join(" "), "\n"]);
    }
    text
}

fn unique<T: PartialEq>(all: &[T]) -> Vec<&T> {
    let is_first = |(at, one): &(usize, &T)| !all[..*at].contains(one);
    all.iter().enumerate().filter(is_first).map(|(_, one)| one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn behind_local(text: &str) -> &str {
        let local = text.find("ff02::2").unwrap();
        &text[local + text[local..].find('\n').unwrap() + 1..]
    }

    #[test]
    fn the_host_is_known_at_each_of_its_addresses() {
        let mut host = HostName { name: "web".into(), domain: None };
        assert_eq!(behind_local(&hosts(&host, &[], &[], "")), "127.0.1.1\tweb\n");
        host.domain = Some("example.org".into());
        let own = [(ip("10.0.0.2"), "front"), (ip("fd00::2"), "front")];
        let expected = "10.0.0.2\tweb.example.org web\n10.0.0.2\tfront.localhost\n\
                        fd00::2\tweb.example.org web\nfd00::2\tfront.localhost\n10.0.0.9\tdb\n";
        assert_eq!(behind_local(&hosts(&host, &own, &[(ip("10.0.0.9"), "db".into())], "")), expected);
        assert_eq!(host.whole(), "web.example.org");
        let own = [(ip("10.0.0.2"), "client"), (ip("10.0.0.2"), "public")];
        let expected = "10.0.0.2\tweb.example.org web\n10.0.0.2\tclient.localhost\n10.0.0.2\tpublic.localhost\n";
        assert_eq!(behind_local(&hosts(&host, &own, &[], "")), expected);
    }

    #[test]
    fn the_images_lines_come_last_without_names_of_ours() {
        let host = HostName { name: "web".into(), domain: None };
        let image = "# a comment\n127.0.0.1 localhost\n  127.0.0.1\tlocalhost build   # mine\n\n10.9.9.9 db other\n10.9.9.8 db\n1.2.3.4 web\n192.0.2.1";
        let text = hosts(&host, &[], &[(ip("10.0.0.9"), "db".into())], image);
        assert_eq!(behind_local(&text), "127.0.1.1\tweb\n10.0.0.9\tdb\n127.0.0.1\tbuild\n10.9.9.9\tother\n");
    }

    #[test]
    fn resolvers_are_asked_in_order_each_once_and_three_at_most() {
        let dns = ["10.0.0.1", "10.0.0.2", "10.0.0.1", "fd00::3", "10.0.0.4"].map(ip);
        let (a, b) = ("example.org".to_owned(), "local".to_owned());
        let text = resolv(&dns, &[&a, &b, &a], &["ndots:2".into(), "rotate".into()], "nameserver 6.6.6.6\n");
        let expected = "nameserver 10.0.0.1\nnameserver 10.0.0.2\nnameserver fd00::3\nsearch example.org local\noptions ndots:2 rotate\n";
        assert_eq!(text, expected);
        assert_eq!(resolv(&[], &[], &[], "nameserver 6.6.6.6\n"), "nameserver 6.6.6.6\n");
        assert_eq!(resolv(&[], &[], &["rotate".into()], "nameserver 6.6.6.6\n"), "options rotate\n");
    }
}
