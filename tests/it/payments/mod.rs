//! Payments: repeats, refusals, cancellations, faults, and payments by external providers.

mod cancel;
mod external;
mod external_kill;
mod external_races;
mod external_recovery;
mod external_refunds;
mod external_sale;
mod faults;
mod kill;
mod one_call;
mod organiser_cancel;
mod partial_cancel;
mod pay;
mod receipts;
