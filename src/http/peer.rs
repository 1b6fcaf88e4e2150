//! The address of the client, behind any number of trusted proxies.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use axum::http::HeaderMap;

/// The remote address of the connection. The listener adds it to the extensions of every request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PeerAddress(pub SocketAddr);

/// The address of the client behind `trusted` proxies.
///
/// Each proxy appends the address of its client to `X-Forwarded-For`. So the outermost of n trusted
/// proxies wrote the n-th entry from the right, and entries to the left of it can be forged. If
/// that entry is missing or invalid, the request did not pass the proxies, and the result is the
/// peer.
pub fn client_address(peer: SocketAddr, headers: &HeaderMap, trusted: u8) -> IpAddr {
    let forwarded = || {
        let lines = headers.get_all("x-forwarded-for").iter().rev();
        let mut entries = lines.flat_map(|line| line.to_str().unwrap_or("").rsplit(','));
        entries.nth(usize::from(trusted) - 1).and_then(parse)
    };
    if trusted == 0 { peer.ip() } else { forwarded().unwrap_or(peer.ip()) }.to_canonical()
}

/// Parses an address with or without a port.
fn parse(entry: &str) -> Option<IpAddr> {
    let entry = entry.trim();
    let bare = entry.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(entry);
    bare.parse().ok().or_else(|| entry.parse::<SocketAddr>().ok().map(|address| address.ip()))
}

/// The key of rate limits: the address, or the /64 network of an IPv6 address, because one host may
/// use all addresses of its /64.
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
    fn header_is_ignored_without_trusted_proxies() {
        assert_eq!(seen(0, &["198.51.100.7"]), "192.0.2.1");
    }

    #[test]
    fn only_entries_of_trusted_proxies_count() {
        assert_eq!(seen(1, &["203.0.113.9, 198.51.100.7"]), "198.51.100.7");
        assert_eq!(seen(2, &["203.0.113.9, 198.51.100.7"]), "203.0.113.9");
        assert_eq!(seen(2, &["1.1.1.1, 203.0.113.9", "198.51.100.7"]), "203.0.113.9");
    }

    #[test]
    fn missing_or_invalid_entry_means_the_peer() {
        for lines in [&[][..], &[""], &["unknown"], &["1.2.3.4, _hidden"]] {
            assert_eq!(seen(1, lines), "192.0.2.1", "{lines:?}");
        }
        assert_eq!(seen(3, &["203.0.113.9, 198.51.100.7"]), "192.0.2.1");
    }

    #[test]
    fn ports_and_brackets_are_parsed() {
        assert_eq!(seen(1, &["198.51.100.7:443"]), "198.51.100.7");
        assert_eq!(seen(1, &["[2001:db8::1]:443"]), "2001:db8::1");
        assert_eq!(seen(1, &["[2001:db8::1]"]), "2001:db8::1");
        assert_eq!(seen(1, &["::ffff:198.51.100.7"]), "198.51.100.7");
    }

    #[test]
    fn ipv6_address_becomes_its_network() {
        assert_eq!(network("2001:db8:1:2:3:4:5:6".parse().unwrap()).to_string(), "2001:db8:1:2::");
        assert_eq!(network("192.0.2.1".parse().unwrap()).to_string(), "192.0.2.1");
    }
}
