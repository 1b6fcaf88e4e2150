//! Parses settings one by one and collects the errors.

use std::fmt;
use std::fs::File;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::str::FromStr;

/// One invalid setting. The message never repeats the value, which may be a secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InvalidSetting {
    /// The name of the environment variable.
    pub setting: &'static str,
    pub message: String,
}

impl fmt::Display for InvalidSetting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({}): {}", self.setting, flag(self.setting), self.message)
    }
}

/// All invalid settings, in the order in which they were checked.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct InvalidSettings(Vec<InvalidSetting>);

impl InvalidSettings {
    pub fn settings(&self) -> &[InvalidSetting] {
        &self.0
    }
}

impl fmt::Display for InvalidSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("invalid settings:")?;
        self.0.iter().try_for_each(|bad| write!(f, "\n  {bad}"))
    }
}

impl std::error::Error for InvalidSettings {}

/// The flag of a setting: `--admin-key` for `USHER_ADMIN_KEY`.
pub fn flag(setting: &str) -> String {
    format!("--{}", setting.trim_start_matches("USHER_").to_ascii_lowercase().replace('_', "-"))
}

/// Parses settings and collects the errors.
#[derive(Default)]
pub(super) struct SettingsChecker(Vec<InvalidSetting>);

impl SettingsChecker {
    pub(super) fn fail(&mut self, setting: &'static str, message: impl Into<String>) {
        self.0.push(InvalidSetting { setting, message: message.into() });
    }

    pub(super) fn finish(self) -> Result<(), InvalidSettings> {
        if self.0.is_empty() { Ok(()) } else { Err(InvalidSettings(self.0)) }
    }

    /// A setting without a default.
    pub(super) fn required<'a>(
        &mut self,
        setting: &'static str,
        value: Option<&'a str>,
    ) -> Option<&'a str> {
        let value = given(value);
        if value.is_none() {
            self.fail(setting, "must be given");
        }
        value
    }

    /// A number in the range. The default when the value is missing or invalid; the latter is an
    /// error.
    pub(super) fn number<T>(
        &mut self,
        setting: &'static str,
        value: Option<&str>,
        range: RangeInclusive<T>,
        default: T,
    ) -> T
    where
        T: FromStr + PartialOrd + fmt::Display,
    {
        let Some(text) = given(value) else { return default };
        match text.parse() {
            Ok(number) if range.contains(&number) => number,
            _ => {
                self.fail(
                    setting,
                    format!("must be a number from {} to {}", range.start(), range.end()),
                );
                default
            }
        }
    }

    /// `true` or `false`. `false` when the value is missing or invalid; the latter is an error.
    pub(super) fn flag(&mut self, setting: &'static str, value: Option<&str>) -> bool {
        self.parsed(setting, value, "false", "must be true or false").unwrap_or(false)
    }

    /// The path of a readable file.
    pub(super) fn file(&mut self, setting: &'static str, value: Option<&str>) -> Option<PathBuf> {
        let path = given(value)?;
        match File::open(path) {
            Ok(_) => Some(path.into()),
            Err(cause) => {
                self.fail(setting, format!("must be a readable file: {cause}"));
                None
            }
        }
    }

    /// A value that `FromStr` parses.
    pub(super) fn parsed<T: FromStr>(
        &mut self,
        setting: &'static str,
        value: Option<&str>,
        default: &str,
        must: &str,
    ) -> Option<T> {
        let parsed = given(value).unwrap_or(default).parse().ok();
        if parsed.is_none() {
            self.fail(setting, must);
        }
        parsed
    }
}

/// The value without surrounding white space. `None` when it is empty.
pub(super) fn given(value: Option<&str>) -> Option<&str> {
    value.map(str::trim).filter(|text| !text.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_range_checked_and_empty_means_default() {
        let mut check = SettingsChecker::default();
        for (value, expected) in
            [(None, 64), (Some(""), 64), (Some(" "), 64), (Some("1"), 1), (Some(" 4096 "), 4096)]
        {
            assert_eq!(
                check.number("USHER_PARTITIONS", value, 1..=4096, 64),
                expected,
                "{value:?}"
            );
        }
        check.finish().unwrap();
        for value in ["0", "4097", "-1", "x", "1.5", "99999999999999999999"] {
            let mut check = SettingsChecker::default();
            check.number("USHER_PARTITIONS", Some(value), 1..=4096_u16, 64);
            let shown = check.finish().unwrap_err().settings()[0].to_string();
            assert_eq!(
                shown, "USHER_PARTITIONS (--partitions): must be a number from 1 to 4096",
                "{value}"
            );
        }
    }

    #[test]
    fn all_errors_are_reported_together() {
        let mut check = SettingsChecker::default();
        check.required("USHER_REDIS_URL", None);
        check.required("USHER_ADMIN_KEY", Some(" "));
        let shown = check.finish().unwrap_err().to_string();
        assert!(shown.contains("USHER_REDIS_URL (--redis-url): must be given\n"), "{shown}");
        assert!(shown.ends_with("USHER_ADMIN_KEY (--admin-key): must be given"), "{shown}");
    }
}
