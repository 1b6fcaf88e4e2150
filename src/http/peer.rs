//! Who is at the other end of the connection, and behind how many proxies.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use axum::http::HeaderMap;

/// The other end of the connection, as the listener saw it. In the extensions of every request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PeerAddress(pub SocketAddr);

/// The client's address, seen through `trusted` proxies of our own.
///
/// Each proxy appends the address it was spoken to from, so the n-th entry from the right was written by the outermost of n trusted
/// proxies; whatever stands left of it was written by the client and is ignored. Where that entry is missing or unreadable the
/// request did not come by way of the proxies, and the peer itself is the answer.
pub fn client_address(peer: SocketAddr, headers: &HeaderMap, trusted: u8) -> IpAddr {
    let forwarded = || {
        let lines = headers.get_all("x-forwarded-for").iter().rev();
        let mut entries = lines.flat_map(|line| line.to_str().unwrap_or("").rsplit(','));
        entries.nth(usize::from(trusted) - 1).and_then(parse)
    };
    if trusted == 0 { peer.ip() } else { forwarded().unwrap_or(peer.ip()) }.to_canonical()
}

/// An address, with or without a port.
fn parse(entry: &str) -> Option<IpAddr> {
    let entry = entry.trim();
    let bare = entry.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(entry);
    bare.parse().ok().or_else(|| entry.parse::<SocketAddr>().ok().map(|address| address.ip()))
}

/// What rates are counted by: the address, or the /64 network of an IPv6 one, because a single host has as many addresses as that.
pub fn network(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & (u128::MAX << 64))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(trusted: u8, lines: &[&str]) -> String {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append("x-forwarded-for", line.parse().unwrap());
        }
        client_address("192.0.2.1:4000".parse().unwrap(), &headers, trusted).to_string()
    }

    #[test]
    fn without_proxies_the_header_is_nothing() {
        assert_eq!(seen(0, &["198.51.100.7"]), "192.0.2.1");
    }

    #[test]
    fn only_what_trusted_proxies_wrote_counts() {
        assert_eq!(seen(1, &["203.0.113.9, 198.51.100.7"]), "198.51.100.7");
        assert_eq!(seen(2, &["203.0.113.9, 198.51.100.7"]), "203.0.113.9");
        assert_eq!(seen(2, &["1.1.1.1, 203.0.113.9", "198.51.100.7"]), "203.0.113.9");
    }

    #[test]
    fn a_missing_or_broken_entry_is_the_peer() {
        for lines in [&[][..], &[""], &["unknown"], &["1.2.3.4, _hidden"]] {
            assert_eq!(seen(1, lines), "192.0.2.1", "{lines:?}");
        }
        assert_eq!(seen(3, &["203.0.113.9, 198.51.100.7"]), "192.0.2.1");
    }

    #[test]
    fn ports_and_brackets_are_read() {
        assert_eq!(seen(1, &["198.51.100.7:443"]), "198.51.100.7");
        assert_eq!(seen(1, &["[2001:db8::1]:443"]), "2001:db8::1");
        assert_eq!(seen(1, &["[2001:db8::1]"]), "2001:db8::1");
        assert_eq!(seen(1, &["::ffff:198.51.100.7"]), "198.51.100.7");
    }

    #[test]
    fn a_v6_host_is_its_network() {
        assert_eq!(network("2001:db8:1:2:3:4:5:6".parse().unwrap()).to_string(), "2001:db8:1:2::");
        assert_eq!(network("192.0.2.1".parse().unwrap()).to_string(), "192.0.2.1");
    }
}
