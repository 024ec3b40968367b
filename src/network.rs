//! Networks: CIDRs and addresses as policies write them, and fast membership in a set of many.

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use std::fmt;
use std::net::IpAddr;

/// Why a text is no network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum InvalidNetwork {
    /// Neither a CIDR nor an address.
    Syntax,
    /// A CIDR with host bits set: the network it lies in, which may or may not be what was meant.
    HostBits(Network),
    /// An IPv4 network written as IPv6 (`::ffff:10.0.0.0/104`): addresses are compared as IPv4.
    Mapped,
}

impl fmt::Display for InvalidNetwork {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Syntax => f.write_str("is neither an address nor a CIDR"),
            Self::HostBits(_) => f.write_str("has host bits set"),
            Self::Mapped => f.write_str("is an IPv4 network written as IPv6"),
        }
    }
}

/// One CIDR, without host bits; a single address is a CIDR of full length.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Network(IpNet);

impl Network {
    /// Parses `203.0.113.0/24`, `2001:db8::/32` or a plain address.
    ///
    /// # Errors
    /// [`InvalidNetwork`], which says what is wrong.
    pub fn parse(text: &str) -> Result<Self, InvalidNetwork> {
        let net = match text.parse::<IpNet>() {
            Ok(net) => net,
            Err(_) => IpNet::from(text.parse::<IpAddr>().map_err(|_| InvalidNetwork::Syntax)?),
        };
        if net.trunc() != net {
            return Err(InvalidNetwork::HostBits(Self(net.trunc())));
        }
        // A short prefix such as ::/0 contains the mapped range without being one.
        if let IpNet::V6(v6) = net
            && v6.prefix_len() >= 96
            && v6.addr().to_ipv4_mapped().is_some()
        {
            return Err(InvalidNetwork::Mapped);
        }
        Ok(Self(net))
    }

    /// Whether the address lies in the network. An IPv4-mapped address counts as IPv4.
    pub fn contains(&self, address: IpAddr) -> bool {
        self.0.contains(&address.to_canonical())
    }

    /// Whether it contains every address of its family.
    pub fn is_everything(&self) -> bool {
        self.0.prefix_len() == 0
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.prefix_len() == self.0.max_prefix_len() {
            write!(f, "{}", self.0.addr())
        } else {
            write!(f, "{}", self.0)
        }
    }
}

/// Many networks as two sorted lists of disjoint ranges: membership is one binary search, whatever their number.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NetworkSet {
    v4: Box<[(u32, u32)]>,
    v6: Box<[(u128, u128)]>,
}

impl NetworkSet {
    /// Whether every address of a family lies in it.
    pub fn is_everything(&self) -> bool {
        *self.v4 == [(0, u32::MAX)] || *self.v6 == [(0, u128::MAX)]
    }

    /// The addresses that lie in both sets.
    #[must_use]
    pub fn intersection(&self, other: &Self) -> Self {
        // Ranges of either set do not touch, so those in common do not either.
        Self { v4: common(&self.v4, &other.v4).into(), v6: common(&self.v6, &other.v6).into() }
    }

    /// Its first and last addresses, range by range.
    pub fn ranges(&self) -> impl Iterator<Item = (IpAddr, IpAddr)> {
        let v4 =
            self.v4.iter().map(|(first, last)| (IpAddr::V4((*first).into()), IpAddr::V4((*last).into())));
        v4.chain(
            self.v6.iter().map(|(first, last)| (IpAddr::V6((*first).into()), IpAddr::V6((*last).into()))),
        )
    }

    /// Whether the address lies in any of the networks. An IPv4-mapped address counts as IPv4.
    pub fn contains(&self, address: IpAddr) -> bool {
        match address.to_canonical() {
            IpAddr::V4(v4) => in_ranges(&self.v4, v4.to_bits()),
            IpAddr::V6(v6) => in_ranges(&self.v6, v6.to_bits()),
        }
    }
}

/// Joins ranges that touch, so that equal sets are equal values. `next`: the point behind the end of a range.
fn joined<T: Ord + Copy>(ranges: Vec<(T, T)>, next: impl Fn(T) -> Option<T>) -> Box<[(T, T)]> {
    let mut joined: Vec<(T, T)> = Vec::with_capacity(ranges.len());
    for (first, last) in ranges {
        match joined.last_mut() {
            Some(before) if next(before.1) == Some(first) => before.1 = last,
            _ => joined.push((first, last)),
        }
    }
    joined.into_boxed_slice()
}

/// What two sorted lists of disjoint ranges have in common.
fn common<T: Ord + Copy>(left: &[(T, T)], right: &[(T, T)]) -> Vec<(T, T)> {
    let (mut left, mut right) = (left.iter().peekable(), right.iter().peekable());
    let mut common = Vec::new();
    while let (Some(a), Some(b)) = (left.peek(), right.peek()) {
        let (first, last) = (a.0.max(b.0), a.1.min(b.1));
        if first <= last {
            common.push((first, last));
        }
        if a.1 <= b.1 {
            left.next();
        } else {
            right.next();
        }
    }
    common
}

fn in_ranges<T: Ord + Copy>(ranges: &[(T, T)], point: T) -> bool {
    let after = ranges.partition_point(|(first, _)| *first <= point);
    after.checked_sub(1).and_then(|at| ranges.get(at)).is_some_and(|(_, last)| point <= *last)
}

impl FromIterator<Network> for NetworkSet {
    fn from_iter<I: IntoIterator<Item = Network>>(networks: I) -> Self {
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        for Network(net) in networks {
            match net {
                IpNet::V4(net) => v4.push(net),
                IpNet::V6(net) => v6.push(net),
            }
        }
        // `aggregate` leaves networks that neither overlap nor could be one.
        let mut v4: Vec<_> = Ipv4Net::aggregate(&v4)
            .iter()
            .map(|net| (net.network().to_bits(), net.broadcast().to_bits()))
            .collect();
        let mut v6: Vec<_> = Ipv6Net::aggregate(&v6)
            .iter()
            .map(|net| (net.network().to_bits(), net.broadcast().to_bits()))
            .collect();
        v4.sort_unstable();
        v6.sort_unstable();
        Self { v4: joined(v4, |last| last.checked_add(1)), v6: joined(v6, |last| last.checked_add(1)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn network(text: &str) -> Network {
        Network::parse(text).unwrap()
    }

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn reads_cidrs_and_addresses() {
        assert_eq!(network("203.0.113.0/24").to_string(), "203.0.113.0/24");
        assert_eq!(network("192.0.2.9").to_string(), "192.0.2.9");
        assert_eq!(network("2001:DB8::/32").to_string(), "2001:db8::/32");
        assert!(network("0.0.0.0/0").is_everything());
        assert!(network("::/0").is_everything());
        assert_eq!(
            Network::parse("203.0.113.5/24"),
            Err(InvalidNetwork::HostBits(network("203.0.113.0/24")))
        );
        assert_eq!(Network::parse("::ffff:10.0.0.0/104"), Err(InvalidNetwork::Mapped));
        assert_eq!(Network::parse("::ffff:10.0.0.1"), Err(InvalidNetwork::Mapped));
        for bad in [
            "",
            "office",
            "10.0.0/8",
            "10.0.0.0/33",
            "10.0.0.0/-1",
            "010.0.0.1",
            "fe80::1%eth0",
            "1.2.3.4:80",
            " 10.0.0.1",
        ] {
            assert_eq!(Network::parse(bad), Err(InvalidNetwork::Syntax), "{bad}");
        }
    }

    #[test]
    fn mapped_addresses_count_as_ipv4() {
        assert!(network("10.0.0.0/8").contains(address("::ffff:10.1.2.3")));
        let set: NetworkSet = [network("10.0.0.0/8")].into_iter().collect();
        assert!(set.contains(address("::ffff:10.1.2.3")));
        assert!(!set.contains(address("::ffff:11.1.2.3")));
        let v6: NetworkSet = [network("::/0")].into_iter().collect();
        assert!(!v6.contains(address("10.0.0.1")), "a family says nothing about the other");
    }

    #[test]
    fn networks_that_are_everything_together_are_found() {
        let set = |texts: &[&str]| -> NetworkSet { texts.iter().map(|text| network(text)).collect() };
        assert!(set(&["0.0.0.0/1", "10.0.0.0/8", "128.0.0.0/1"]).is_everything());
        assert!(set(&["::/1", "8000::/1", "10.0.0.0/8"]).is_everything());
        assert!(!set(&["0.0.0.0/1", "128.0.0.0/2", "192.0.0.0/3"]).is_everything());
        assert!(!set(&[]).is_everything());
    }

    #[test]
    fn equal_sets_are_equal_values() {
        let set = |texts: &[&str]| -> NetworkSet { texts.iter().map(|text| network(text)).collect() };
        assert_eq!(
            set(&["10.0.0.0/8", "11.0.0.0/9", "11.128.0.0/9"]),
            set(&["10.0.0.0/8", "11.0.0.0/8", "10.1.0.0/16"])
        );
        assert_ne!(set(&["10.0.0.0/8", "11.0.0.0/9"]), set(&["10.0.0.0/8", "11.0.0.0/8"]));
        // 10.0.0.0/9 and the range behind it, by two ways of cutting.
        assert_eq!(
            set(&["10.0.0.0/8", "11.0.0.0/9"]).intersection(&set(&["10.128.0.0/9", "11.0.0.0/8", "::/0"])),
            set(&["10.128.0.0/9", "11.0.0.0/9"])
        );
        assert_eq!(set(&["10.0.0.0/8"]).intersection(&set(&["11.0.0.0/8", "::/0"])), set(&[]));
    }

    #[test]
    fn an_empty_set_contains_nothing() {
        assert!(!NetworkSet::default().contains(address("10.0.0.1")));
        assert!(!NetworkSet::default().contains(address("::1")));
    }

    proptest! {
        #[test]
        fn a_set_contains_what_its_networks_contain(
            nets in proptest::collection::vec((any::<u32>(), 0u8..=32), 0..30),
            nets6 in proptest::collection::vec((any::<u128>(), 0u8..=128), 0..30),
            probes in proptest::collection::vec(any::<u32>(), 0..10),
            near in any::<prop::sample::Index>(),
        ) {
            let mut networks: Vec<Network> = nets.iter()
                .map(|(bits, len)| Network(Ipv4Net::new((*bits).into(), *len).unwrap().trunc().into()))
                .collect();
            networks.extend(nets6.iter()
                .map(|(bits, len)| Network(Ipv6Net::new((*bits).into(), *len).unwrap().trunc().into())));
            let set: NetworkSet = networks.iter().copied().collect();
            let mut addresses: Vec<IpAddr> = probes.iter().map(|bits| IpAddr::V4((*bits).into())).collect();
            if !networks.is_empty() {
                let IpNet::V4(net) = networks[near.index(networks.len())].0 else { return Ok(()) };
                addresses.push(net.network().into());
                addresses.push(net.broadcast().into());
                addresses.push(IpAddr::V4(net.broadcast().to_bits().wrapping_add(1).into()));
            }
            let (left, right) = networks.split_at(networks.len() / 2);
            let sets = [left, right].map(|part| part.iter().copied().collect::<NetworkSet>());
            let both = sets[0].intersection(&sets[1]);
            for address in addresses {
                prop_assert_eq!(set.contains(address), networks.iter().any(|net| net.contains(address)));
                prop_assert_eq!(both.contains(address), sets.iter().all(|set| set.contains(address)));
            }
        }
    }
}
