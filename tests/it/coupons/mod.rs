//! Coupons: issue, validity windows and use in payments.

mod issue;
pub(crate) mod payments;
mod validity_windows;
