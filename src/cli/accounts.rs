//! Users and groups of this machine, as `/etc/passwd` and `/etc/group` list them. Directories (LDAP, SSSD) are not
//! asked: the standard library cannot, and nginx's worker user is nearly always local.

use super::{Failure, words};
use std::fs;

/// A user with the groups that the kernel would check.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct User {
    pub(super) name: String,
    pub(super) uid: u32,
    /// The primary group and every group that lists the user.
    pub(super) gids: Vec<u32>,
}

impl User {
    /// The user of this name.
    pub(super) fn find(name: &str) -> Result<Self, Failure> {
        Self::find_in(name, &database("/etc/passwd")?, &database("/etc/group")?)
            .ok_or_else(|| Failure(format!("there is no user `{name}` in /etc/passwd")))
    }

    /// Formats: `name:password:uid:gid:...` and `group:password:gid:member,member` a line (passwd(5), group(5)).
    fn find_in(name: &str, passwd: &str, group: &str) -> Option<Self> {
        let (uid, gid) = passwd.lines().find_map(|line| {
            let mut fields = line.split(':');
            let found = fields.next()? == name;
            let (uid, gid) = (fields.nth(1)?.parse().ok()?, fields.next()?.parse().ok()?);
            found.then_some((uid, gid))
        })?;
        let supplementary = group.lines().filter_map(|line| {
            let mut fields = line.split(':').skip(2);
            let gid = fields.next()?.parse().ok()?;
            fields.next()?.split(',').any(|member| member.trim() == name).then_some(gid)
        });
        Some(Self { name: name.to_owned(), uid, gids: std::iter::once(gid).chain(supplementary).collect() })
    }

    /// Whether permission bits give the user this access: 4 to read, 1 to search a directory. The first class that
    /// the user is in decides, as in the kernel (path_resolution(7)); root is not asked.
    pub(super) fn may(&self, access: u32, mode: u32, uid: u32, gid: u32) -> bool {
        let shift = if self.uid == uid {
            6
        } else if self.gids.contains(&gid) {
            3
        } else {
            0
        };
        self.uid == 0 || (mode >> shift) & access == access
    }
}

/// The number of the group of this name.
pub(super) fn gid_of(name: &str) -> Result<u32, Failure> {
    gid_in(name, &database("/etc/group")?)
        .ok_or_else(|| Failure(format!("there is no group `{name}` in /etc/group")))
}

fn gid_in(name: &str, group: &str) -> Option<u32> {
    group.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next()? == name).then(|| fields.nth(1)?.parse().ok())?
    })
}

fn database(path: &str) -> Result<String, Failure> {
    let content =
        fs::read(path).map_err(|error| Failure(format!("cannot read {path}: {}", words(&error))))?;
    // A comment in another encoding must not hide the accounts.
    Ok(String::from_utf8_lossy(&content).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\n\
        www:x:33:34:web:/var/www:/usr/sbin/nologin\n\
        broken:x:\n\
        www-data:x:35:36::/:/bin/false\n";
    const GROUP: &str =
        "root:x:0:\nwww:x:34:\nkeys:x:50:other,www\nlogs:x:51:www-data\nbroken\nnumber:x:y:www\n";

    fn www() -> User {
        User::find_in("www", PASSWD, GROUP).unwrap()
    }

    #[test]
    fn finds_users_with_all_their_groups() {
        assert_eq!(www(), User { name: "www".into(), uid: 33, gids: vec![34, 50] });
        assert_eq!(User::find_in("www-data", PASSWD, GROUP).unwrap().gids, [36, 51]);
        for unknown in ["", "ww", "broken", "33"] {
            assert_eq!(User::find_in(unknown, PASSWD, GROUP), None, "{unknown}");
        }
        assert_eq!(gid_in("keys", GROUP), Some(50));
        assert_eq!(gid_in("key", GROUP), None);
        assert_eq!(gid_in("broken", GROUP), None);
    }

    #[test]
    fn the_first_class_decides() {
        let (www, root) = (www(), User { name: "root".into(), uid: 0, gids: vec![0] });
        // mode, owner, group, may read
        for (mode, uid, gid, expected) in [
            (0o400, 33, 0, true),
            (0o044, 33, 0, false),
            (0o040, 0, 34, true),
            (0o040, 0, 50, true),
            (0o404, 0, 50, false),
            (0o004, 0, 0, true),
            (0o640, 0, 0, false),
        ] {
            assert_eq!(www.may(4, mode, uid, gid), expected, "{mode:o} {uid} {gid}");
            assert!(root.may(4, mode, uid, gid));
        }
        assert!(www.may(1, 0o710, 0, 50));
        assert!(!www.may(1, 0o640, 0, 50), "a directory that may be read may still not be searched");
    }
}
