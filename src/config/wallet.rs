//! Settings of money.

use super::args::{StoreArgs, WalletArgs};
use super::check::SettingsChecker;
use crate::money::{self, CurrencyCode, Money};

impl WalletArgs {
    /// The largest balance that a charge or a reward may lead to.
    pub(super) fn limit(&self, check: &mut SettingsChecker) -> Option<Money> {
        let limit = self.wallet_limit.as_deref();
        Money::new(check.number("USHER_WALLET_LIMIT", limit, 1..=money::MAX, money::MAX))
    }
}

pub(super) fn parse_currency(
    args: &StoreArgs,
    check: &mut SettingsChecker,
) -> Option<CurrencyCode> {
    let must = "must be an ISO 4217 code, such as EUR";
    check.parsed("USHER_CURRENCY", args.currency.as_deref(), "KRW", must)
}
