//! Coupons: issue, terms, validity windows and use in payments.

mod issue;
pub(crate) mod payments;
mod terms;
mod validity_windows;
