//! Payments, as stored in Redis and MySQL.

use serde::Deserialize;

use crate::ids::{CouponId, IssueId, PaymentId, QueueId, ReservationId, UserId};
use crate::money::Money;
use crate::outbox::event::ExternalPayment;
use crate::wallet::WalletOperation;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PaymentState {
    /// The wallet may have been debited. An external payment may wait for its provider.
    Pending,
    /// The payment is being voided and can't be confirmed any more.
    Voiding,
    /// Paid. The seats are sold.
    Confirmed,
    /// Voided because of the balance or the coupon.
    Declined,
    /// Voided for another reason.
    Voided,
    /// Some or all seats are being cancelled.
    Refunding,
    /// The reservation was cancelled.
    Refunded,
}

/// The cancellation of some or all seats, until its money is refunded.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct PendingCancellation {
    /// Its number among those of the reservation, from 1.
    pub number: u32,
    pub seats: Vec<u32>,
    /// Whether no seats are left after it.
    pub last: bool,
    /// The sum of all refunds after it.
    pub total: Money,
}

/// The payment of one reservation.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Payment {
    pub id: PaymentId,
    pub reservation: ReservationId,
    pub user: UserId,
    /// The queue determines the partition.
    pub queue: QueueId,
    pub state: PaymentState,
    /// The number of the attempt, from 1. It is part of the operation ids in the wallet.
    pub attempt: u32,
    /// The price of the seats.
    pub amount: Money,
    /// The discount of the coupon.
    pub discount: Money,
    /// The coupon of the issue. `None` without an issue, and when the issue does not exist.
    #[serde(default)]
    pub coupon: Option<CouponId>,
    /// The coupon issue that the payment redeems.
    #[serde(default)]
    pub issue: Option<IssueId>,
    /// Why the payment was voided.
    #[serde(default)]
    pub reason: Option<String>,
    /// The balance after the debit, once confirmed.
    #[serde(default)]
    pub balance_after: Option<Money>,
    /// The sum of what cancelled seats gave back.
    #[serde(default)]
    pub refunded: Money,
    /// Only of an external payment.
    #[serde(default)]
    pub external: Option<Box<ExternalPayment>>,
    /// The cancellation in progress.
    #[serde(default)]
    pub cancelling: Option<PendingCancellation>,
    /// The number of the outbox entry of its last outcome. 0 before that, and for a payment that
    /// was read from MySQL.
    #[serde(default)]
    pub n: u64,
    /// When the first attempt began, in milliseconds since 1970.
    pub created_at: i64,
    /// When it reached its state, in milliseconds since 1970.
    pub at: i64,
}

impl Payment {
    /// What identifies the debit of this attempt, and its refund, in the wallet.
    pub(super) fn operation(&self) -> WalletOperation {
        WalletOperation {
            user: self.user,
            payment: self.id,
            attempt: self.attempt,
            reservation: Some(self.reservation),
        }
    }

    /// What the user pays, by wallet and provider together.
    pub fn to_pay(&self) -> Money {
        Money::new(self.amount.get() - self.discount.get()).unwrap_or(Money::ZERO)
    }

    /// The part that the wallet pays.
    pub fn wallet_amount(&self) -> Money {
        self.external.as_ref().map_or(self.to_pay(), |external| external.wallet_amount)
    }

    /// Whether the wallet pays a part of an external payment.
    pub(super) fn has_debit(&self) -> bool {
        self.wallet_amount() > Money::ZERO
    }

    /// Whether the payment waits, or has waited, for its provider.
    pub fn is_awaited(&self) -> bool {
        self.external.as_ref().is_some_and(|external| external.due_at.is_some())
    }

    /// The part of a refund that the wallet gets: its part is given back first.
    pub(super) fn wallet_refund(&self, refund: Money) -> Money {
        refund.min(self.wallet_amount())
    }

    /// What the provider has to pay back.
    pub fn refund_due(&self) -> Money {
        let Some(external) = &self.external else { return Money::ZERO };
        let total = self.refunded.get() - self.wallet_refund(self.refunded).get();
        Money::new(total - external.paid_back()).unwrap_or(Money::ZERO)
    }
}
