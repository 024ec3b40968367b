//! What the `Connection` lines of a request name (RFC 9110, section 7.6.1).
//!
//! A proxy behind removes every header that is named there, whoever set it: names beyond the connection's own options
//! would choose what of the gateway's or Grafana's headers reaches the next server.

/// The names in all `Connection` lines of a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Connection(u8);

impl Connection {
    const CLOSE: u8 = 1;
    const KEEP_ALIVE: u8 = 2;
    const TE: u8 = 4;
    const UPGRADE: u8 = 8;
    const OTHERS: u8 = 16;

    /// What one line says of the connection itself, in the order in which [`Connection::kept`] writes it.
    const OPTIONS: [(u8, &'static str); 4] = [
        (Self::CLOSE, "close"),
        (Self::KEEP_ALIVE, "keep-alive"),
        (Self::TE, "te"),
        (Self::UPGRADE, "upgrade"),
    ];

    /// Adds the names of one line: its value, as it came.
    #[inline]
    pub fn add(&mut self, line: &[u8]) {
        // What nearly all clients send, as they write it.
        self.0 |= match line {
            b"keep-alive" => Self::KEEP_ALIVE,
            b"close" => Self::CLOSE,
            _ => Self::read(line),
        };
    }

    #[cold]
    fn read(line: &[u8]) -> u8 {
        let names = line.split(|byte| *byte == b',').map(<[u8]>::trim_ascii).filter(|name| !name.is_empty());
        names.fold(0, |all, name| {
            let option =
                Self::OPTIONS.iter().find(|(_, option)| name.eq_ignore_ascii_case(option.as_bytes()));
            all | option.map_or(Self::OTHERS, |(bit, _)| *bit)
        })
    }

    /// Whether there is `upgrade` among the names.
    pub fn has_upgrade(self) -> bool {
        self.0 & Self::UPGRADE != 0
    }

    /// Whether a header is named.
    pub fn names_others(self) -> bool {
        self.0 & Self::OTHERS != 0
    }

    /// Whether there is a name that does not go on where nothing is upgraded.
    #[inline]
    pub fn is_unusual(self) -> bool {
        self.0 & (Self::UPGRADE | Self::OTHERS) != 0
    }

    /// The same names but `upgrade`.
    #[must_use]
    pub fn without_upgrade(self) -> Self {
        Self(self.0 & !Self::UPGRADE)
    }

    /// The one line that goes on: the connection's own options. Empty where nothing is left.
    pub fn kept(self) -> String {
        let options = Self::OPTIONS.iter().filter(|(bit, _)| self.0 & bit != 0);
        options.map(|(_, name)| *name).collect::<Vec<_>>().join(", ")
    }

    /// As a number below 32, for Lua.
    pub fn to_number(self) -> u8 {
        self.0
    }

    /// What [`Connection::to_number`] made a number of.
    pub fn from_number(number: u8) -> Self {
        Self(number & 31)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(lines: &[&str]) -> Connection {
        lines.iter().fold(Connection::default(), |mut all, line| {
            all.add(line.as_bytes());
            all
        })
    }

    #[test]
    fn only_the_connections_own_options_are_kept() {
        for (lines, kept, upgraded, others) in [
            (&[][..], "", "", false),
            (&[""], "", "", false),
            (&["close"], "close", "close", false),
            (&["Keep-Alive"], "keep-alive", "keep-alive", false),
            (&["keep-alive, Upgrade"], "keep-alive", "keep-alive, upgrade", false),
            (&["Upgrade", " TE , close,, "], "close, te", "close, te, upgrade", false),
            (&["close, X-Grafana-User,X-Id-Token , Cookie"], "close", "close", true),
            (&["keep-alive", "x-scope-orgid"], "keep-alive", "keep-alive", true),
            (&["Upgrade, HTTP2-Settings"], "", "upgrade", true),
            (&["close;x"], "", "", true),
            (&["close x"], "", "", true),
            (&["\"close\""], "", "", true),
            (&["upgrades", "closed", "t"], "", "", true),
            (&["close\u{b}"], "", "", true),
            (&["Connection"], "", "", true),
        ] {
            let read = of(lines);
            assert_eq!((&*read.without_upgrade().kept(), &*read.kept()), (kept, upgraded), "{lines:?}");
            assert_eq!(read.names_others(), others, "{lines:?}");
            assert_eq!(read.is_unusual(), others || read.has_upgrade(), "{lines:?}");
            assert_eq!(Connection::from_number(read.to_number()), read);
            let mut again = Connection::default();
            again.add(read.kept().as_bytes());
            assert!(!again.names_others() && again.kept() == read.kept(), "{lines:?}");
        }
    }
}
