//! The languages that a client prefers, for the message of a queue.

use std::convert::Infallible;

use axum::extract::FromRequestParts;
use axum::http::header::ACCEPT_LANGUAGE;
use axum::http::request::Parts;

/// Language tags of `Accept-Language` (RFC 9110, 12.5.4), the preferred one first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct PreferredLanguages(pub(super) Vec<String>);

/// Bounds the work for one request. Browsers send fewer.
const MAX_LANGUAGES: usize = 16;

impl<S: Send + Sync> FromRequestParts<S> for PreferredLanguages {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        let header = parts.headers.get(ACCEPT_LANGUAGE).and_then(|value| value.to_str().ok());
        Ok(Self::parse(header.unwrap_or_default()))
    }
}

impl PreferredLanguages {
    fn parse(header: &str) -> Self {
        let mut weighted: Vec<(f32, &str)> = header
            .split(',')
            .take(MAX_LANGUAGES)
            .filter_map(|range| {
                let (tag, parameters) = range.split_once(';').unwrap_or((range, ""));
                let weight = match parameters.trim().strip_prefix("q=") {
                    Some(weight) => weight.parse().ok()?,
                    None => 1.0,
                };
                let tag = tag.trim();
                (weight > 0.0 && !tag.is_empty() && tag != "*").then_some((weight, tag))
            })
            .collect();
        weighted.sort_by(|(a, _), (b, _)| b.total_cmp(a));
        Self(weighted.into_iter().map(|(_, tag)| tag.to_owned()).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::super::settings::LocalizedText;
    use super::*;

    #[test]
    fn message_has_the_preferred_language() {
        let texts = [("en", "soon"), ("ko", "곧"), ("pt-BR", "logo")];
        let texts = texts.map(|(tag, text)| (tag.to_owned(), text.to_owned()));
        let message = LocalizedText::ByLanguage(texts.into_iter().collect());
        for (header, text) in [
            ("", "soon"),
            ("ko-KR,ko;q=0.9,en;q=0.8", "곧"),
            ("en;q=0.5, KO;q=0.9", "곧"),
            ("pt;q=1.0", "logo"),
            ("fr, *;q=0.5", "soon"),
            ("ko;q=0", "soon"),
        ] {
            let preferred = PreferredLanguages::parse(header);
            assert_eq!(message.text(&preferred.0), Some(text), "{header}");
        }
        let text = LocalizedText::Text("same".into());
        assert_eq!(text.text(&PreferredLanguages::parse("ko").0), Some("same"));
    }
}
