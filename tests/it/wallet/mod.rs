//! Wallets: the ledger.

mod ledger;
mod limits;
