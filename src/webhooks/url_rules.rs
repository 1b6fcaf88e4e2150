//! Which URLs and addresses a webhook may have.
//!
//! The list of special addresses is that of the IANA registries for IPv4 and IPv6
//! (<https://www.iana.org/assignments/iana-ipv4-special-registry/>).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use url::{Host, Url};

const MAX_URL_LENGTH: usize = 2048;

/// Parses the URL of a webhook. `url` reads IPv4 addresses in every notation.
///
/// # Errors
/// The rule that it breaks.
pub(super) fn parse(text: &str, allow_private: bool) -> Result<Url, &'static str> {
    if text.len() > MAX_URL_LENGTH {
        return Err("must have at most 2048 bytes");
    }
    let url = Url::parse(text).map_err(|_| "must be an absolute URL")?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err("must begin with https:// or http://");
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("must not contain credentials");
    }
    if url.fragment().is_some() {
        return Err("must not contain a fragment");
    }
    let literal = match url.host() {
        None => return Err("must have a host"),
        Some(Host::Ipv4(address)) => Some(IpAddr::V4(address)),
        Some(Host::Ipv6(address)) => Some(IpAddr::V6(address)),
        Some(Host::Domain(_)) => None,
    };
    if !allow_private && literal.is_some_and(is_private) {
        return Err(NOT_PUBLIC);
    }
    Ok(url)
}

pub(super) const NOT_PUBLIC: &str = "must not lead to a private, loopback or link-local address";

/// Whether an address is not one of the public internet.
pub(super) fn is_private(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_private_v4(address),
        IpAddr::V6(address) => is_private_v6(address),
    }
}

fn is_private_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    match (a, b, c) {
        // This network, private use, loopback, multicast and reserved.
        (0 | 10 | 127 | 224..=255, ..) => true,
        // Shared address space of providers.
        (100, 64..=127, _) => true,
        (169, 254, _) => true,
        (172, 16..=31, _) => true,
        // Protocol assignments, documentation, 6to4 relays.
        (192, 0, 0 | 2) | (192, 88, 99) => true,
        (192, 168, _) => true,
        // Benchmarks and documentation.
        (198, 18 | 19, _) | (198, 51, 100) | (203, 0, 113) => true,
        _ => false,
    }
}

fn is_private_v6(address: Ipv6Addr) -> bool {
    let [a, b, c, d, e, f, g, h] = address.segments();
    let embedded = |high: u16, low: u16| {
        let ([w, x], [y, z]) = (high.to_be_bytes(), low.to_be_bytes());
        is_private_v4(Ipv4Addr::new(w, x, y, z))
    };
    match a {
        // An IPv4 address, mapped or compatible; also the unspecified and the loopback address.
        0 if (b, c, d, e) == (0, 0, 0, 0) && (f == 0 || f == 0xffff) => embedded(g, h),
        // Translated by NAT64.
        0x64 if b == 0xff9b => c != 0 || embedded(g, h),
        // 6to4.
        0x2002 => embedded(b, c),
        // Teredo, benchmarks, ORCHID; documentation.
        0x2001 => b < 0x0200 || b == 0x0db8,
        // Only 2000::/3 is in public use.
        _ => !(0x2000..=0x3fff).contains(&a),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn private_addresses_are_found_in_every_notation() {
        for host in [
            "127.0.0.1",
            "127.1",
            "2130706433",
            "0x7f.0.0.1",
            "0x7f000001",
            "017700000001",
            "0",
            "10.1.2.3",
            "100.64.0.1",
            "169.254.169.254",
            "172.16.0.1",
            "192.168.1.1",
            "198.18.0.1",
            "224.0.0.1",
            "255.255.255.255",
            "[::1]",
            "[::]",
            "[::ffff:127.0.0.1]",
            "[::127.0.0.1]",
            "[fe80::1]",
            "[fd00::1]",
            "[ff02::1]",
            "[64:ff9b::7f00:1]",
            "[2002:7f00:1::]",
            "[2001:db8::1]",
            "①②⑦.0.0.1",
            "127.0.0.1.",
        ] {
            let url = format!("https://{host}/hook");
            assert_eq!(parse(&url, false).err(), Some(NOT_PUBLIC), "{url}");
            assert!(parse(&url, true).is_ok(), "{url}");
        }
        for host in ["8.8.8.8", "172.32.0.1", "192.0.1.1", "[2606:4700::1111]", "example.com"] {
            assert!(parse(&format!("https://{host}/hook"), false).is_ok(), "{host}");
        }
    }

    #[test]
    fn other_urls_are_refused() {
        for (url, part) in [
            ("ftp://example.com/", "https"),
            ("file:///etc/passwd", "https"),
            ("https://user:password@example.com/", "credentials"),
            ("https://user@example.com/", "credentials"),
            ("https://example.com/#x", "fragment"),
            ("/hook", "absolute"),
            ("", "absolute"),
            ("https://", "absolute"),
            ("https://256.256.256.256/", "absolute"),
        ] {
            assert!(parse(url, true).is_err_and(|rule| rule.contains(part)), "{url}");
        }
        assert!(parse(&format!("https://example.com/{}", "x".repeat(2048)), true).is_err());
    }
}
