//! The restore: writes the state of one partition from MySQL to Redis, one file for each domain.
//!
//! What is read depends on what exists now (wallets, sold seats, coupon issues) and on what can
//! still be repeated (25 hours of answers, eight days of operations on wallets), not on the history:
//! indexes bound every query, and the writer keeps the totals.
//!
//! Rows are streamed from MySQL, in the transaction that locks the partition, and written by
//! scripts under the recovery fence, a few hundred per call. So ten million rows need no more
//! memory than a hundred.
//!
//! | restored | from | not restored |
//! |:--|:--|:--|
//! | balances, paid totals, what payments did to them, idempotency keys with their answers ([`wallets`], [`idempotency_keys`]) | `wallets`, `wallet_entries`, `payments` | keys older than a day |
//! | facts, reward claims ([`users`]) | `user_facts`, `reward_claims` | definitions of rewards: the next claim publishes them |
//! | sold seats, seats per user, sales, reservations and payments of the last day ([`sales`], [`payments`]) | `reservation_seats`, `reservations`, `payments` | holds; archived concerts; definitions: the next call publishes them |
//! | external payments that wait, with their seats and coupon issues; references that have paid ([`payments`], [`coupons`]) | `pending_payments`, `payments` | claims of references that have not paid |
//! | coupon issues and redemptions ([`coupons`]) | `coupon_issues` | issues that payments by wallet in progress had reserved |
//! | the number of admitted users, the window for regaining positions ([`queues`]) | `promotions`, `queues` | positions: the queue tokens contain them |

mod coupons;
mod idempotency_keys;
mod payments;
mod queues;
mod sales;
mod users;
mod wallets;
mod writer;

pub(super) use wallets::redebit_args;
pub(super) use writer::FencedWriter;

use sqlx::MySqlConnection;

use super::Error;
use crate::redis::{ScriptArgs, scripts};

/// Restores everything and sets the sequence to the checkpoint.
pub(super) async fn restore_all(
    writer: &mut FencedWriter<'_>,
    mysql: &mut MySqlConnection,
) -> Result<(), Error> {
    wallets::restore(writer, mysql).await?;
    idempotency_keys::restore(writer, mysql).await?;
    users::restore(writer, mysql).await?;
    coupons::restore(writer, mysql).await?;
    sales::restore(writer, mysql).await?;
    payments::restore(writer, mysql).await?;
    let mut args = ScriptArgs::new();
    args.text(&writer.checkpoint.to_string());
    writer.call(&scripts::RECOVERY_RESTORE_SEQUENCE, writer.scope(), args, Vec::new()).await?;
    // This emits events, so the sequence must be set before it.
    wallets::redebit_paid_payments(writer, mysql).await?;
    // Last, because the window for regaining positions starts now.
    queues::restore(writer, mysql).await
}
