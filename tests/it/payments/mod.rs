//! Payments: repeats, refusals, cancellations and faults.

mod cancel;
mod faults;
mod kill;
mod partial_cancel;
mod pay;
mod receipts;
