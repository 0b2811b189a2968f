//! Who a process runs as: `user[:group]` and more groups against the image's own `/etc/passwd` and `/etc/group`, as docker and runc resolve it.
//!
//! A number is always a number, and needs no entry. Of several entries the first counts; a line that is none is passed over. Texts are docker's.
//! Sources: moby/sys `user/user.go`; passwd(5), group(5).

use std::io::{self, Read as _};
use std::path::Path;

use guest::image;
use nix::unistd::{Gid, Uid};
use wire::status::{Failure, FailureKind};

use crate::boot::machine;

/// A resolved user.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Account {
    pub(crate) uid: Uid,
    pub(crate) gid: Gid,
    /// Every group of the process, the main one too, each once.
    pub(crate) groups: Vec<Gid>,
    pub(crate) home: String,
}

/// The greatest number of a user or group that docker lets one name.
const GREATEST: u32 = i32::MAX as u32;
/// More than a million users.
const BOUND: u64 = 64 << 20;

/// Resolves `user[:group]` in the root; empty is user 0.
pub(crate) fn resolve(wanted: &str, groups: &[String]) -> Result<Account, Failure> {
    resolve_in(&read("/etc/passwd")?, &read("/etc/group")?, wanted, groups)
}

/// An image need not have one; what is no file has no lines.
fn read(path: &str) -> Result<String, Failure> {
    let failed = |error: &dyn std::fmt::Display| machine(&format!("cannot read {path}"), error);
    let file = match image::open(Path::new("/"), path) {
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(String::new());
        }
        other => other.map_err(|error| failed(&error))?,
    };
    let meta = file.metadata().map_err(|error| failed(&error))?;
    if !meta.is_file() {
        return Ok(String::new());
    }
    if meta.len() > BOUND {
        return Err(failed(&"it is larger than 64 MiB"));
    }
    let mut bytes = Vec::new();
    file.take(BOUND).read_to_end(&mut bytes).map_err(|error| failed(&error))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
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

fn resolve_in(passwd: &str, group: &str, wanted: &str, more: &[String]) -> Result<Account, Failure> {
    let (user, group_wanted) = wanted.split_once(':').unwrap_or((wanted, ""));
    let user = if user.is_empty() { "0" } else { user };
    let (found, uid) = match number(user)? {
        Some(uid) => (users(passwd).find(|entry| entry.uid == uid), uid),
        None => match users(passwd).find(|entry| entry.name == user) {
            Some(entry) => (Some(entry), 0),
            None => return Err(unknown("user", user, "passwd")),
        },
    };
    let User { name, uid, gid, home } = found.unwrap_or(User { name: "", uid, gid: 0, home: "" });
    let (gid, memberships) = match group_wanted {
        "" => (gid, groups(group).filter(|entry| is_member(entry, name)).map(|entry| entry.gid).collect()),
        // who names a group is in that one alone
        wanted => (find_group(group, wanted)?, Vec::new()),
    };
    let mut all = vec![Gid::from_raw(gid)];
    let more = more.iter().map(|wanted| find_group(group, wanted)).collect::<Result<Vec<u32>, Failure>>()?;
    for gid in memberships.into_iter().chain(more).map(Gid::from_raw) {
        if !all.contains(&gid) {
            all.push(gid);
        }
    }
    let home = if home.is_empty() { "/" } else { home };
    Ok(Account { uid: Uid::from_raw(uid), gid: Gid::from_raw(gid), groups: all, home: home.into() })
}

fn find_group(group: &str, wanted: &str) -> Result<u32, Failure> {
    match number(wanted)? {
        Some(gid) => Ok(gid),
        None => {
            let found = groups(group).find(|entry| entry.name == wanted).map(|entry| entry.gid);
            found.ok_or_else(|| unknown("group", wanted, "group"))
        }
    }
}

/// What is no number is a name.
fn number(text: &str) -> Result<Option<u32>, Failure> {
    let Ok(number) = text.parse::<i64>() else { return Ok(None) };
    let number = u32::try_from(number).ok().filter(|number| *number <= GREATEST);
    number.map(Some).ok_or_else(|| Failure {
        kind: FailureKind::UnknownUser,
        reason: format!("uids and gids must be in range 0-{GREATEST}: {text} is not"),
    })
}

fn is_member(group: &Group<'_>, name: &str) -> bool {
    !name.is_empty() && group.members.split(',').any(|member| member == name)
}

fn users(passwd: &str) -> impl Iterator<Item = User<'_>> {
    passwd.lines().filter_map(|line| {
        let mut fields = line.trim().split(':');
        let (name, _password) = (fields.next()?, fields.next()?);
        let (uid, gid) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
        Some(User { name, uid, gid, home: fields.nth(1).unwrap_or("") })
    })
}

fn groups(group: &str) -> impl Iterator<Item = Group<'_>> {
    group.lines().filter_map(|line| {
        let mut fields = line.trim().split(':');
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

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nbroken\nwww:x:33:33::/var/www:\n1000:x:7:7::/odd:\n\
                          nohome:x:9:9\n+::::::\nodd:x:many:1::/:\n  spaced:x:12:13::/s:  \nwww:x:99:99::/second:\n";
    const GROUP: &str =
        "root:x:0:\nwww:x:33:www\naudio:x:29:www,other\nvideo:x:44:other\n:\nbad:x:y:www\ndisk:x:6:www\n";

    fn check(wanted: &str, uid: u32, gid: u32, groups: &[u32], home: &str) {
        let account = resolve_in(PASSWD, GROUP, wanted, &[]).unwrap();
        let found: Vec<u32> = account.groups.iter().map(|gid| gid.as_raw()).collect();
        assert_eq!(
            (account.uid.as_raw(), account.gid.as_raw(), found.as_slice(), account.home.as_str()),
            (uid, gid, groups, home),
            "{wanted:?}"
        );
    }

    #[test]
    fn users_are_found_as_docker_finds_them() {
        check("", 0, 0, &[0], "/root");
        check("www", 33, 33, &[33, 29, 6], "/var/www");
        check("33", 33, 33, &[33, 29, 6], "/var/www");
        check("www:video", 33, 44, &[44], "/var/www");
        check("www:4444", 33, 4444, &[4444], "/var/www");
        check("12345", 12345, 0, &[0], "/");
        check("12345:6", 12345, 6, &[6], "/");
        check("2147483647:2147483647", 2_147_483_647, 2_147_483_647, &[2_147_483_647], "/");
        check(":audio", 0, 29, &[29], "/root");
        // what looks like a number is one, whatever names there are
        check("1000", 1000, 0, &[0], "/");
        check("7", 7, 7, &[7], "/odd");
        check("nohome", 9, 9, &[9], "/");
        check("spaced", 12, 13, &[13], "/s");
    }

    #[test]
    fn more_groups_are_added_each_once() {
        let more = ["video", "29", "4444", "www"].map(String::from);
        let account = resolve_in(PASSWD, GROUP, "www", &more).unwrap();
        assert_eq!(account.groups, [33, 29, 6, 44, 4444].map(Gid::from_raw));
        let named = resolve_in(PASSWD, GROUP, "www:disk", &more).unwrap();
        assert_eq!(named.groups, [6, 44, 29, 4444, 33].map(Gid::from_raw));
    }

    #[test]
    fn the_unknown_are_named() {
        let reason = |wanted, more: &[&str]| {
            let more: Vec<String> = more.iter().map(ToString::to_string).collect();
            let failure = resolve_in(PASSWD, GROUP, wanted, &more).unwrap_err();
            assert_eq!(failure.kind, FailureKind::UnknownUser);
            failure.reason
        };
        assert_eq!(reason("nosuch", &[]), "unable to find user nosuch: no matching entries in passwd file");
        assert_eq!(reason("odd", &[]), "unable to find user odd: no matching entries in passwd file");
        assert_eq!(reason("www:nosuch", &[]), "unable to find group nosuch: no matching entries in group file");
        assert_eq!(reason("", &["nosuch"]), "unable to find group nosuch: no matching entries in group file");
        for odd in ["2147483648", "-1", "0:4294967296", ":-1"] {
            assert!(reason(odd, &[]).starts_with("uids and gids must be in range 0-2147483647: "), "{odd}");
        }
        assert!(resolve_in("", "", "", &[]).is_ok(), "an image without passwd has a root");
        assert!(resolve_in("", "", "1:2", &["3".into()]).is_ok());
    }

    #[test]
    fn a_line_of_any_length_is_a_line() {
        let members: String = (0..100_000).map(|n| format!("user{n},")).collect();
        let group = format!("big:x:50:{members}www\nafter:x:51:www\n");
        let account = resolve_in(PASSWD, &group, "www", &[]).unwrap();
        assert_eq!(account.groups, [33, 50, 51].map(Gid::from_raw));
    }
}
