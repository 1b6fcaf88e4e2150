//! What a coupon takes off a payment, and until when. The terms are copied into each issue.
//!
//! Redis and the events store them as text, `kind:value:limit:minimum:valid_until`, with an empty
//! word for a value that is not set: `amount:2000::5000:`. `lua/coupons/reserve.lua` reads it.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::money::Money;

/// How the discount is computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum DiscountKind {
    /// A fixed amount, at most the price.
    #[default]
    Amount,
    /// A share of the price, rounded down.
    Percent,
}

impl DiscountKind {
    /// The word in scripts, in SQL and in the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Amount => "amount",
            Self::Percent => "percent",
        }
    }
}

impl FromStr for DiscountKind {
    type Err = InvalidTerms;

    fn from_str(word: &str) -> Result<Self, InvalidTerms> {
        match word {
            "amount" => Ok(Self::Amount),
            "percent" => Ok(Self::Percent),
            _ => Err(InvalidTerms),
        }
    }
}

/// The discount of a coupon.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CouponDiscount {
    pub kind: DiscountKind,
    /// Set for [`DiscountKind::Amount`].
    pub amount: Option<Money>,
    /// 1…100, set for [`DiscountKind::Percent`].
    pub percent: Option<u32>,
    /// The largest discount of [`DiscountKind::Percent`].
    pub limit: Option<Money>,
    /// The smallest price that the coupon can be used for.
    pub min_available_amount: Money,
}

impl CouponDiscount {
    /// What it takes off a price; `None` when it can't be used for it. `lua/coupons/reserve.lua`
    /// decides for payments, by the same rules.
    pub fn off(&self, price: Money) -> Option<Money> {
        if price < self.min_available_amount {
            return None;
        }
        let off = match self.kind {
            DiscountKind::Amount => self.amount.unwrap_or_default(),
            DiscountKind::Percent => {
                let share = i128::from(price.get()) * i128::from(self.percent.unwrap_or(0)) / 100;
                let share = i64::try_from(share).ok().and_then(Money::new)?;
                self.limit.map_or(share, |limit| share.min(limit))
            }
        };
        Some(off.min(price))
    }
}

/// The terms of an issue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CouponTerms {
    pub discount: CouponDiscount,
    /// The issue can be used before this time, in milliseconds since 1970.
    pub valid_until: Option<i64>,
}

#[derive(Debug, thiserror::Error)]
#[error("not the terms of a coupon")]
pub struct InvalidTerms;

/// Without `valid_until`.
impl fmt::Display for CouponDiscount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.kind.as_str())?;
        match self.kind {
            DiscountKind::Amount => write!(f, "{}:", self.amount.unwrap_or_default().get())?,
            DiscountKind::Percent => write!(f, "{}:", self.percent.unwrap_or_default())?,
        }
        if let Some(limit) = self.limit {
            write!(f, "{}", limit.get())?;
        }
        write!(f, ":{}", self.min_available_amount.get())
    }
}

impl fmt::Display for CouponTerms {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.discount)?;
        match self.valid_until {
            Some(at) => write!(f, "{at}"),
            None => Ok(()),
        }
    }
}

impl FromStr for CouponTerms {
    type Err = InvalidTerms;

    fn from_str(text: &str) -> Result<Self, InvalidTerms> {
        let words: Vec<&str> = text.split(':').collect();
        let [kind, value, limit, minimum, valid_until] = words[..] else {
            return Err(InvalidTerms);
        };
        let money = |word: &str| word.parse().ok().and_then(Money::new).ok_or(InvalidTerms);
        let kind: DiscountKind = kind.parse()?;
        let (amount, percent) = match kind {
            DiscountKind::Amount => (Some(money(value)?), None),
            DiscountKind::Percent => (None, Some(value.parse().map_err(|_| InvalidTerms)?)),
        };
        let limit = if limit.is_empty() { None } else { Some(money(limit)?) };
        let valid_until = match valid_until {
            "" => None,
            word => Some(word.parse().map_err(|_| InvalidTerms)?),
        };
        let min_available_amount = money(minimum)?;
        let discount = CouponDiscount { kind, amount, percent, limit, min_available_amount };
        Ok(Self { discount, valid_until })
    }
}

impl<'de> Deserialize<'de> for CouponTerms {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        String::deserialize(from)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn terms_are_written_and_read_as_text() {
        let terms = |text: &str| text.parse::<CouponTerms>().unwrap();
        for text in ["amount:2000::5000:", "percent:15:3000:0:1767225600000", "percent:100::0:"] {
            assert_eq!(terms(text).to_string(), text);
        }
        let percent = terms("percent:15:3000:0:1767225600000");
        assert_eq!((percent.discount.percent, percent.discount.amount), (Some(15), None));
        assert_eq!(
            (percent.discount.limit, percent.valid_until),
            (Money::new(3_000), Some(1_767_225_600_000))
        );
    }

    #[test]
    fn discount_of_a_price_is_exact() {
        for (terms, price, expected) in [
            ("amount:2000::5000:", 5_000, Some(2_000)),
            ("amount:2000::5000:", 4_999, None),
            ("amount:2000::0:", 1_500, Some(1_500)),
            ("percent:15::0:", 999, Some(149)),
            ("percent:15:100:0:", 999, Some(100)),
            ("percent:33::0:", crate::money::MAX, Some(2_972_375_754_064_527)),
            ("percent:100::0:", crate::money::MAX, Some(crate::money::MAX)),
        ] {
            let off =
                terms.parse::<CouponTerms>().unwrap().discount.off(Money::new(price).unwrap());
            assert_eq!(off.map(Money::get), expected, "{terms} of {price}");
        }
    }

    #[test]
    fn other_texts_are_not_terms() {
        for bad in [
            "",
            "amount:2000::5000",
            "amount:2000::5000::",
            "share:20::0:",
            "amount:::0:",
            "amount:-1::0:",
            "percent:x::0:",
            "amount:1::0:soon",
            "amount:9007199254740992::0:",
        ] {
            assert!(bad.parse::<CouponTerms>().is_err(), "{bad}");
        }
    }
}
