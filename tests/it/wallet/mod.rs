//! Wallets: the ledger.

mod ledger;
