//! Payments: repeats, refusals, cancellations and faults.

mod cancel;
mod faults;
mod kill;
mod pay;
