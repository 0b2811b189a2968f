//! Who a process runs as: `user[:group]` against the image's own `/etc/passwd` and `/etc/group`, as docker resolves it.
//!
//! Names first, then numbers; a number needs no entry. Texts are docker's. Files: passwd(5), group(5).

use std::path::Path;

use nix::unistd::{Gid, Uid};
use wire::status::{Failure, FailureKind};

/// A resolved user.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Account {
    pub(crate) uid: Uid,
    pub(crate) gid: Gid,
    /// Supplementary groups.
    pub(crate) groups: Vec<Gid>,
    pub(crate) home: String,
}

/// Resolves `user[:group]` in the file system below `root`; empty is user 0.
pub(crate) fn resolve(root: &Path, wanted: &str) -> Result<Account, Failure> {
    let read = |path: &str| std::fs::read(root.join(path)).unwrap_or_default();
    let (passwd, group) = (read("etc/passwd"), read("etc/group"));
    resolve_in(&String::from_utf8_lossy(&passwd), &String::from_utf8_lossy(&group), wanted)
}

struct User<'a> {
    name: &'a str,
    uid: u32,
    gid: u32,
    home: &'a str,
}

struct Group<'a> {
    name: &'a str,
    gid: u32,
    members: &'a str,
}

fn resolve_in(passwd: &str, group: &str, wanted: &str) -> Result<Account, Failure> {
    let (user, group_wanted) = wanted.split_once(':').unwrap_or((wanted, ""));
    let user = if user.is_empty() { "0" } else { user };
    let number: Option<u32> = user.parse().ok();
    let found = users(passwd).find(|entry| entry.name == user).or_else(|| {
        let uid = number?;
        users(passwd).find(|entry| entry.uid == uid)
    });
    let (uid, mut gid, name, home) = match (found, number) {
        (Some(entry), _) => (entry.uid, entry.gid, entry.name, entry.home),
        (None, Some(uid)) => (uid, 0, "", "/"),
        (None, None) => return Err(unknown("user", user, "passwd")),
    };
    let mut memberships = Vec::new();
    if group_wanted.is_empty() {
        memberships.extend(groups(group).filter(|entry| is_member(entry, name)).map(|entry| Gid::from_raw(entry.gid)));
    } else {
        let named = groups(group).find(|entry| entry.name == group_wanted).map(|entry| entry.gid);
        gid = named.or(group_wanted.parse().ok()).ok_or_else(|| unknown("group", group_wanted, "group"))?;
    }
    let home = if home.is_empty() { "/" } else { home };
    Ok(Account { uid: Uid::from_raw(uid), gid: Gid::from_raw(gid), groups: memberships, home: home.into() })
}

fn is_member(group: &Group<'_>, name: &str) -> bool {
    !name.is_empty() && group.members.split(',').any(|member| member == name)
}

fn users(passwd: &str) -> impl Iterator<Item = User<'_>> {
    passwd.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let (name, _password) = (fields.next()?, fields.next()?);
        let (uid, gid) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
        Some(User { name, uid, gid, home: fields.nth(1).unwrap_or("") })
    })
}

fn groups(group: &str) -> impl Iterator<Item = Group<'_>> {
    group.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let (name, _password) = (fields.next()?, fields.next()?);
        Some(Group { name, gid: fields.next()?.parse().ok()?, members: fields.next().unwrap_or("") })
    })
}

fn unknown(what: &str, name: &str, file: &str) -> Failure {
    let reason = format!("unable to find {what} {name}: no matching entries in {file} file");
    Failure { kind: FailureKind::UnknownUser, reason }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str =
        "root:x:0:0:root:/root:/bin/sh\nbroken\nwww:x:33:33::/var/www:\n1000:x:7:7::/odd:\nnohome:x:9:9\n";
    const GROUP: &str = "root:x:0:\nwww:x:33:\naudio:x:29:www,other\nvideo:x:44:other\ndisk:x:6:www\n";

    fn check(wanted: &str, uid: u32, gid: u32, groups: &[u32], home: &str) {
        let account = resolve_in(PASSWD, GROUP, wanted).unwrap();
        let found: Vec<u32> = account.groups.iter().map(|gid| gid.as_raw()).collect();
        assert_eq!(
            (account.uid.as_raw(), account.gid.as_raw(), found.as_slice(), account.home.as_str()),
            (uid, gid, groups, home),
            "{wanted:?}"
        );
    }

    #[test]
    fn users_are_found_as_docker_finds_them() {
        check("", 0, 0, &[], "/root");
        check("www", 33, 33, &[29, 6], "/var/www");
        check("33", 33, 33, &[29, 6], "/var/www");
        check("www:video", 33, 44, &[], "/var/www");
        check("www:4444", 33, 4444, &[], "/var/www");
        check("12345", 12345, 0, &[], "/");
        check("12345:6", 12345, 6, &[], "/");
        check(":audio", 0, 29, &[], "/root");
        // a name that looks like a number is a name first
        check("1000", 7, 7, &[], "/odd");
        check("nohome", 9, 9, &[], "/");
    }

    #[test]
    fn the_unknown_are_named() {
        let reason = |wanted| resolve_in(PASSWD, GROUP, wanted).unwrap_err().reason;
        assert_eq!(reason("nosuch"), "unable to find user nosuch: no matching entries in passwd file");
        assert_eq!(reason("www:nosuch"), "unable to find group nosuch: no matching entries in group file");
        assert!(resolve_in("", "", "").is_ok(), "an image without passwd has a root");
    }
}
