//! How the waiting page of a queue looks: name, logo, colours and support link of the site.

use std::fmt;

use axum::http::Uri;
use serde::de::value::MapAccessDeserializer;
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use super::rules::text_violation;
use super::settings::LocalizedText;
use crate::definition::DefinitionViolation;

const MAX_NAME_CHARACTERS: usize = 100;
const MAX_URL_BYTES: usize = 500;

/// How the waiting page of a queue looks. An omitted field keeps the look of the default page.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(default, deny_unknown_fields)]
#[schema(as = QueuePage)]
pub struct QueuePage {
    /// The name of the event in the header, up to 100 characters: one text, or one by language.
    pub event_name: Option<LocalizedText>,
    /// An image for the header: an `https` URL of up to 500 characters.
    #[schema(example = "https://tickets.example/logo.svg")]
    pub logo_url: Option<String>,
    /// The colour of buttons and of the progress bar, as `#rrggbb`. The page writes black or white
    /// on it, and uses its default colour for text where this one is hard to read.
    #[schema(example = "#0055aa")]
    pub accent_color: Option<String>,
    /// The background of the header, as `#rrggbb`. The page writes black or white on it.
    #[schema(example = "#101820")]
    pub header_color: Option<String>,
    /// Where visitors find help: an `https` URL of up to 500 characters.
    #[schema(example = "https://tickets.example/help")]
    pub support_url: Option<String>,
}

impl QueuePage {
    pub(super) fn violations(&self) -> Vec<DefinitionViolation> {
        let mut violations = Vec::new();
        if let Some(name) = &self.event_name {
            violations.extend(text_violation("page.event_name", name, MAX_NAME_CHARACTERS));
        }
        for (field, url) in
            [("page.logo_url", &self.logo_url), ("page.support_url", &self.support_url)]
        {
            if url.as_deref().is_some_and(|url| https_origin(url).is_none()) {
                let message = "must be a URL with https:// and a host, of up to 500 characters";
                violations.push(DefinitionViolation::new(field, message));
            }
        }
        for (field, color) in
            [("page.accent_color", &self.accent_color), ("page.header_color", &self.header_color)]
        {
            if color.as_deref().is_some_and(|color| !is_color(color)) {
                let message = "must be a colour as #rrggbb";
                violations.push(DefinitionViolation::new(field, message));
            }
        }
        violations
    }

    /// The origin of the logo, from which the content security policy allows images.
    pub(super) fn logo_origin(&self) -> Option<String> {
        self.logo_url.as_deref().and_then(https_origin)
    }
}

/// Reads an object or null. The derived implementation would also accept an array of the fields.
pub(super) fn object_or_null<'de, D: Deserializer<'de>>(
    from: D,
) -> Result<Option<QueuePage>, D::Error> {
    struct PageVisitor;

    impl<'de> Visitor<'de> for PageVisitor {
        type Value = Option<QueuePage>;

        fn expecting(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
            formatter.write_str("an object or null")
        }

        fn visit_unit<E>(self) -> Result<Self::Value, E> {
            Ok(None)
        }

        fn visit_map<A: MapAccess<'de>>(self, fields: A) -> Result<Self::Value, A::Error> {
            QueuePage::deserialize(MapAccessDeserializer::new(fields)).map(Some)
        }
    }

    from.deserialize_any(PageVisitor)
}

fn is_color(text: &str) -> bool {
    text.strip_prefix('#').is_some_and(|digits| {
        digits.len() == 6 && digits.bytes().all(|digit| digit.is_ascii_hexdigit())
    })
}

/// `https://host[:port]` of a URL. The host has only characters that can't end a directive of a
/// content security policy.
fn https_origin(url: &str) -> Option<String> {
    let uri: Uri = url.parse().ok().filter(|_| url.len() <= MAX_URL_BYTES)?;
    let authority = uri.authority().filter(|_| uri.scheme_str() == Some("https"))?.as_str();
    let (host, port) = authority.split_once(':').unwrap_or((authority, "443"));
    let is_host = !host.is_empty()
        && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-".contains(&byte));
    (is_host && port.parse::<u16>().is_ok_and(|port| port > 0))
        .then(|| format!("https://{authority}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_https_and_safe_in_a_policy() {
        for (url, origin) in [
            ("https://a.example/logo.svg?v=1", Some("https://a.example")),
            ("https://a.example:8443", Some("https://a.example:8443")),
            ("HTTPS://a.example/", Some("https://a.example")),
            ("http://a.example/logo.svg", None),
            ("javascript:alert(1)", None),
            ("data:image/png;base64,AA", None),
            ("//a.example/logo.svg", None),
            ("/logo.svg", None),
            ("https://", None),
            ("https://a.example;script-src *", None),
            ("https://*/logo.svg", None),
            ("https://user:secret@a.example/", None),
            ("https://a.example:0/", None),
            ("https://a.example:99999/", None),
            ("https://a.example/ logo", None),
            ("", None),
        ] {
            assert_eq!(https_origin(url).as_deref(), origin, "{url}");
        }
        let long = format!("https://a.example/{}", "x".repeat(MAX_URL_BYTES));
        assert_eq!(https_origin(&long), None);
    }

    #[test]
    fn colors_have_six_digits() {
        for (color, valid) in [
            ("#0055aA", true),
            ("#05a", false),
            ("0055aa", false),
            ("#0055a", false),
            ("#0055aaff", false),
            ("#0055ag", false),
            ("red", false),
            ("", false),
        ] {
            assert_eq!(is_color(color), valid, "{color}");
        }
    }
}
