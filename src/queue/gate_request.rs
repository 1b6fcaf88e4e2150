//! What a proxy reports about the request that the gate checks: its method, whether a browser opens
//! a page, and the public address of the site.

use axum::http::header::{ACCEPT, ACCESS_CONTROL_REQUEST_METHOD, HOST, ORIGIN};
use axum::http::{HeaderMap, Method, Uri};

/// No host name is longer.
const MAX_HOST_LENGTH: usize = 255;

/// How the gate finds the public address of the site.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GateSettings {
    /// The number of trusted proxies. With 0, `X-Forwarded-Method`, `-Proto` and `-Host` are
    /// ignored, because any client can send them.
    pub trusted_proxies: u8,
    /// Whether the public listener uses TLS.
    pub tls: bool,
}

/// The method that the client sent to the proxy.
pub(super) fn original_method(
    method: &Method,
    headers: &HeaderMap,
    settings: GateSettings,
) -> Method {
    forwarded(headers, "x-forwarded-method", settings)
        .and_then(|name| Method::from_bytes(name.as_bytes()).ok())
        .unwrap_or_else(|| method.clone())
}

pub(super) fn is_preflight(method: &Method, headers: &HeaderMap) -> bool {
    *method == Method::OPTIONS
        && headers.contains_key(ORIGIN)
        && headers.contains_key(ACCESS_CONTROL_REQUEST_METHOD)
}

/// Whether a browser opens a page, so that a redirect reaches the visitor. Without Fetch Metadata,
/// which old browsers lack, `Accept` decides.
pub fn is_navigation(method: &Method, headers: &HeaderMap) -> bool {
    const FETCH_METADATA: [&str; 4] =
        ["sec-fetch-mode", "sec-fetch-site", "sec-fetch-dest", "sec-fetch-user"];
    if ![Method::GET, Method::HEAD].contains(method) {
        return false;
    }
    if FETCH_METADATA.iter().any(|name| headers.contains_key(*name)) {
        return headers.get("sec-fetch-mode").is_some_and(|mode| mode == "navigate");
    }
    let accepted = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
    prefers_html(accepted.flat_map(|value| value.split(',')))
}

/// Whether HTML has the highest weight of all media types. The first one wins a tie.
fn prefers_html<'a>(accepted: impl Iterator<Item = &'a str>) -> bool {
    let mut best = (0.0, false);
    for entry in accepted {
        let mut parts = entry.split(';').map(str::trim);
        let kind = parts.next().unwrap_or_default().to_ascii_lowercase();
        let weight = parts.find_map(|part| part.strip_prefix("q="));
        let weight = weight.map_or(1.0, |weight| weight.parse::<f32>().unwrap_or(0.0));
        if weight > best.0 {
            best = (weight, ["text/html", "application/xhtml+xml"].contains(&kind.as_str()));
        }
    }
    best.1
}

/// A value that the outermost trusted proxy wrote. Each proxy may append to the header, and entries
/// of earlier hops can be forged.
fn forwarded<'a>(headers: &'a HeaderMap, name: &str, settings: GateSettings) -> Option<&'a str> {
    let trusted = usize::from(settings.trusted_proxies);
    let lines = headers.get_all(name).iter().rev();
    let entries = lines.flat_map(|line| line.to_str().unwrap_or("").rsplit(',')).map(str::trim);
    entries.take(trusted).last().filter(|entry| !entry.is_empty())
}

/// The scheme and host of the site, as the browser sees them. `None` without a valid host.
pub(super) fn public_origin(
    uri: &Uri,
    headers: &HeaderMap,
    settings: GateSettings,
) -> Option<String> {
    let scheme = forwarded(headers, "x-forwarded-proto", settings)
        .map(str::to_ascii_lowercase)
        .filter(|scheme| ["http", "https"].contains(&scheme.as_str()))
        .unwrap_or_else(|| if settings.tls { "https" } else { "http" }.to_owned());
    let own = || uri.authority().map(|authority| authority.as_str());
    let host = forwarded(headers, "x-forwarded-host", settings)
        .filter(|host| is_host(host))
        .or_else(|| headers.get(HOST)?.to_str().ok())
        .or_else(own)
        .filter(|host| is_host(host))?;
    Some(format!("{scheme}://{host}"))
}

/// A name or an address, with or without a port.
fn is_host(host: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-._:[]".contains(&byte);
    !host.is_empty() && host.len() <= MAX_HOST_LENGTH && host.bytes().all(allowed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, HeaderValue::from_static(value));
        }
        headers
    }

    fn behind(trusted_proxies: u8) -> GateSettings {
        GateSettings { trusted_proxies, tls: false }
    }

    #[test]
    fn navigation_follows_fetch_metadata_and_then_accept() {
        const HTML: &str = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8";
        for (method, pairs, expected) in [
            (Method::GET, &[("sec-fetch-mode", "navigate")][..], true),
            (Method::HEAD, &[("sec-fetch-mode", "navigate")], true),
            (Method::POST, &[("sec-fetch-mode", "navigate")], false),
            (Method::GET, &[("sec-fetch-mode", "cors"), ("accept", HTML)], false),
            (Method::GET, &[("sec-fetch-site", "cross-site"), ("accept", HTML)], false),
            (Method::GET, &[("accept", HTML)], true),
            (Method::POST, &[("accept", HTML)], false),
            (Method::GET, &[("accept", "*/*")], false),
            (Method::GET, &[("accept", "application/json, text/html")], false),
            (Method::GET, &[("accept", "application/json;q=0.8, text/html; q=0.9")], true),
            (Method::GET, &[("accept", "text/html;q=0")], false),
            (Method::GET, &[], false),
        ] {
            assert_eq!(is_navigation(&method, &headers(pairs)), expected, "{method} {pairs:?}");
        }
    }

    #[test]
    fn forwarded_headers_count_only_behind_trusted_proxies() {
        let uri = Uri::from_static("/v1/queues/demo/gate");
        let seen = headers(&[
            ("host", "usher:8080"),
            ("x-forwarded-proto", "https"),
            ("x-forwarded-host", "evil.example, shop.example"),
            ("x-forwarded-method", "POST"),
        ]);
        let origin = |trusted| public_origin(&uri, &seen, behind(trusted)).unwrap();
        assert_eq!(origin(0), "http://usher:8080");
        assert_eq!(origin(1), "https://shop.example");
        let method = |trusted| original_method(&Method::GET, &seen, behind(trusted));
        assert_eq!((method(0), method(1)), (Method::GET, Method::POST));
        for bad in ["a b", "a/b", "a@b", "", "a?b"] {
            assert!(!is_host(bad), "{bad:?}");
        }
    }
}
