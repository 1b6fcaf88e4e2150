//! Money: an integer in the minor unit of the currency, and the currency.

use serde::{Deserialize, Serialize};

/// The largest amount and balance, 2^53 − 1: JSON clients and Lua's doubles represent it exactly.
pub const MAX: i64 = 9_007_199_254_740_991;

/// An amount or a balance, 0 to 2^53 − 1, in the minor unit of the currency.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, utoipa::ToSchema,
)]
#[schema(value_type = i64, minimum = 0, maximum = 9_007_199_254_740_991_i64)]
pub struct Money(i64);

impl Money {
    pub const ZERO: Self = Self(0);

    /// An amount; `None` outside 0…[`MAX`].
    pub fn new(minor: i64) -> Option<Self> {
        (0..=MAX).contains(&minor).then_some(Self(minor))
    }

    pub fn get(self) -> i64 {
        self.0
    }

    /// The sum; `None` above [`MAX`].
    pub fn plus(self, other: Self) -> Option<Self> {
        Self::new(self.0 + other.0)
    }
}

/// An ISO 4217 code of three capital letters. Every amount of an installation has this currency.
#[derive(Debug, Clone, Copy, PartialEq, Eq, utoipa::ToSchema)]
#[schema(value_type = String, pattern = "^[A-Z]{3}$", example = "KRW")]
pub struct CurrencyCode([u8; 3]);

impl CurrencyCode {
    pub const DEFAULT: Self = Self(*b"KRW");

    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

impl std::str::FromStr for CurrencyCode {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let code: [u8; 3] = text.as_bytes().try_into().map_err(drop)?;
        if code.iter().all(u8::is_ascii_uppercase) { Ok(Self(code)) } else { Err(()) }
    }
}

impl Serialize for CurrencyCode {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(self.as_str())
    }
}

/// Accepts integers only: the type rejects `12.5`, `1e3` and `"12"`, the range rejects negative and
/// huge ones.
impl<'de> Deserialize<'de> for Money {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let minor = i64::deserialize(from)?;
        Self::new(minor)
            .ok_or_else(|| serde::de::Error::custom(format_args!("must be from 0 to {MAX}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_integers_in_range_are_money() {
        for bad in [
            "-1",
            "12.5",
            "1e3",
            "\"12\"",
            "9007199254740992",
            "9223372036854775808",
            "0x10",
            "null",
            "true",
        ] {
            assert!(serde_json::from_str::<Money>(bad).is_err(), "{bad}");
        }
        assert_eq!(serde_json::from_str::<Money>("9007199254740991").unwrap().get(), MAX);
    }

    #[test]
    fn currency_has_three_capital_letters() {
        assert_eq!("EUR".parse::<CurrencyCode>().unwrap().as_str(), "EUR");
        for bad in ["", "eur", "EU", "EURO", "E1R", "€"] {
            assert!(bad.parse::<CurrencyCode>().is_err(), "{bad}");
        }
    }

    #[test]
    fn sums_stay_in_range() {
        let max = Money::new(MAX).unwrap();
        assert_eq!(max.plus(Money::new(1).unwrap()), None);
        assert_eq!(max.plus(Money::ZERO), Some(max));
    }
}
