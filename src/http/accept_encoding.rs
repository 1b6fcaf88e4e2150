//! The values of `Accept-Encoding` (RFC 9110, 12.5.3).

/// The weight that a list gives a coding, 0 when it is invalid. `None` when the list does not name
/// the coding.
pub fn coding_weight<'a>(list: impl IntoIterator<Item = &'a str>, wanted: &str) -> Option<f32> {
    list.into_iter().find_map(|coding| {
        let (name, parameters) = coding.split_once(';').unwrap_or((coding, ""));
        let weight = parameters.trim().strip_prefix("q=");
        let weight = weight.map_or(Some(1.0), |text| text.parse().ok());
        name.trim().eq_ignore_ascii_case(wanted).then_some(weight.unwrap_or(0.0))
    })
}
