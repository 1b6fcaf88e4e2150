//! Coupons: issue, terms, validity windows and use in payments.

mod issue;
mod own_issues;
pub(crate) mod payments;
mod terms;
mod validity_windows;
