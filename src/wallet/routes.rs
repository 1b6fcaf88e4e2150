//! The routes of the wallet.

use std::sync::Arc;

use axum::extract::{OriginalUri, State};
use axum::http::{HeaderName, Method, StatusCode};
use axum::response::AppendHeaders;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::{
    EntrySubject, Error, LedgerEntry, MovementAnswer, PositionedLedgerEntry, WalletService, history,
};
use crate::http::idempotency::{IdempotencyKey, REPLAYED_HEADER, fingerprint};
use crate::http::identity::{AuthenticatedUser, CallerIdentity, IdentityResolver, NamedUser};
use crate::http::page::PageLimit;
use crate::http::query::QueryParams;
use crate::http::{JsonBody, JsonBodyWithBytes, ProblemDetails};
use crate::idempotency::KeyedRequest;
use crate::ids::{ClaimId, EntryId, PaymentId, ReservationId, UserId, UserName};
use crate::money::{self, CurrencyCode, Money};
use crate::outbox::event::{EntryKind, LedgerEntryEvent};
use crate::time::UnixMillis;

pub fn router() -> OpenApiRouter<Arc<WalletService>> {
    OpenApiRouter::new()
        .routes(routes!(show))
        .routes(routes!(charge))
        .routes(routes!(spend))
        .routes(routes!(entries))
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Wallet)]
struct WalletDto {
    user_id: UserName,
    balance: Money,
    currency: CurrencyCode,
}

/// A positive amount.
#[derive(Debug, Clone, Copy, ToSchema)]
#[schema(value_type = i64, minimum = 1, maximum = 9_007_199_254_740_991_i64)]
struct PositiveAmount(Money);

impl<'de> Deserialize<'de> for PositiveAmount {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let minor = i64::deserialize(from)?;
        let amount = Money::new(minor).filter(|amount| *amount > Money::ZERO).map(Self);
        amount.ok_or_else(|| {
            serde::de::Error::custom(format_args!("must be from 1 to {}", money::MAX))
        })
    }
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct NewLedgerEntry {
    amount: PositiveAmount,
    /// What the entry belongs to in the caller's system, 1–64 characters.
    reference: Option<LedgerReference>,
}

/// A reference of the caller.
#[derive(Debug, Clone, ToSchema)]
#[schema(value_type = String, min_length = 1, max_length = 64, example = "order-4711")]
struct LedgerReference(String);

impl<'de> Deserialize<'de> for LedgerReference {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        if (1..=64).contains(&text.chars().count()) && !text.chars().any(char::is_control) {
            Ok(Self(text))
        } else {
            Err(serde::de::Error::custom("must have 1 to 64 characters"))
        }
    }
}

#[derive(Debug, Clone, Copy, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum LedgerEntryKind {
    Charge,
    Use,
    Payment,
    Refund,
    Reward,
    /// Points of a revoked claim.
    RewardReversal,
}

impl From<EntryKind> for LedgerEntryKind {
    fn from(kind: EntryKind) -> Self {
        match kind {
            EntryKind::Charge => Self::Charge,
            EntryKind::Use => Self::Use,
            EntryKind::Payment => Self::Payment,
            EntryKind::Refund => Self::Refund,
            EntryKind::Reward => Self::Reward,
            EntryKind::RewardReversal => Self::RewardReversal,
        }
    }
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = WalletEntry)]
struct LedgerEntryDto {
    id: EntryId,
    kind: LedgerEntryKind,
    /// The amount moved, whatever the direction. 0 only for a refund of free seats.
    amount: Money,
    /// The balance after this entry.
    balance: Money,
    created_at: UnixMillis,
    /// The payment that moved the money. Null for other entries.
    payment_id: Option<PaymentId>,
    /// The reservation of that payment.
    reservation_id: Option<ReservationId>,
    /// The claim of a reward or its reversal. Null for other entries.
    claim_id: Option<ClaimId>,
    /// The reference of a charge or a use. Null if none was given.
    reference: Option<String>,
}

impl LedgerEntryDto {
    fn new(kind: LedgerEntryKind, entry: LedgerEntry, subject: EntrySubject) -> Self {
        Self {
            id: entry.id,
            kind,
            amount: entry.amount,
            balance: entry.balance,
            created_at: UnixMillis(entry.at),
            payment_id: subject.payment,
            reservation_id: subject.reservation,
            claim_id: subject.claim,
            reference: subject.reference,
        }
    }
}

/// A ledger entry with its user.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = AdminWalletEntry)]
pub struct AdminLedgerEntryDto {
    #[serde(flatten)]
    entry: LedgerEntryDto,
    user_id: UserName,
}

impl AdminLedgerEntryDto {
    pub fn of_event(event: &LedgerEntryEvent, user_id: UserName) -> Self {
        let PositionedLedgerEntry { kind, entry, subject, .. } = history::to_entry(0, event);
        Self { entry: LedgerEntryDto::new(kind.into(), entry, subject), user_id }
    }
}

type CreatedEntry =
    (StatusCode, AppendHeaders<Option<(HeaderName, &'static str)>>, JsonBody<LedgerEntryDto>);

fn created(
    kind: LedgerEntryKind,
    reference: Option<String>,
    answer: MovementAnswer,
) -> CreatedEntry {
    let status = if answer.durable { StatusCode::CREATED } else { StatusCode::ACCEPTED };
    let replayed = answer.replayed.then_some((REPLAYED_HEADER, "true"));
    let subject = EntrySubject { reference, ..EntrySubject::default() };
    let body = LedgerEntryDto::new(kind, answer.entry, subject);
    (status, AppendHeaders(replayed), JsonBody(body))
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
struct LedgerQuery {
    /// The number of items, 1–500. Default: 50.
    #[serde(default)]
    limit: PageLimit,
    /// The `next` of the previous page.
    #[param(value_type = Option<String>)]
    before: Option<LedgerCursor>,
}

/// The position of the last entry of the previous page.
#[derive(Debug, Clone, Copy)]
struct LedgerCursor(i64);

impl<'de> Deserialize<'de> for LedgerCursor {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        let position = text.parse().ok().filter(|position| *position >= 0).map(Self);
        position.ok_or_else(|| serde::de::Error::custom("must be the `next` of the previous page"))
    }
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = WalletEntries)]
struct LedgerEntriesDto {
    items: Vec<LedgerEntryDto>,
    /// The value of `before` for the next page. Null on the last page.
    next: Option<String>,
}

/// List the ledger entries of the caller's wallet
///
/// The newest entry comes first.
#[utoipa::path(
    get,
    path = "/v1/wallet/entries",
    operation_id = "listWalletEntries",
    tag = "wallet",
    params(LedgerQuery),
    responses(
        (status = 200, body = LedgerEntriesDto),
        (status = 401, body = ProblemDetails),
        (status = 422, body = ProblemDetails),
    ),
    security(("user" = []))
)]
async fn entries(
    State(wallet): State<Arc<WalletService>>,
    AuthenticatedUser(user): AuthenticatedUser,
    QueryParams(page): QueryParams<LedgerQuery>,
) -> Result<JsonBody<LedgerEntriesDto>, ProblemDetails> {
    let (entries, more) =
        wallet.entries(user, page.before.map(|before| before.0), page.limit.get()).await?;
    let next = entries.last().filter(|_| more).map(|entry| entry.position.to_string());
    let items = entries
        .into_iter()
        .map(|listed| LedgerEntryDto::new(listed.kind.into(), listed.entry, listed.subject));
    Ok(JsonBody(LedgerEntriesDto { items: items.collect(), next }))
}

/// Get the balance of the caller's wallet
///
/// The balance of a user without ledger entries is 0.
#[utoipa::path(
    get,
    path = "/v1/wallet",
    operation_id = "getWallet",
    tag = "wallet",
    responses((status = 200, body = WalletDto), (status = 401, body = ProblemDetails)),
    security(("user" = []))
)]
async fn show(
    State(wallet): State<Arc<WalletService>>,
    NamedUser(user_id): NamedUser,
) -> Result<JsonBody<WalletDto>, ProblemDetails> {
    let balance = wallet.balance(user_id.key()).await?;
    Ok(JsonBody(WalletDto { user_id, balance, currency: wallet.currency }))
}

/// Add money to a wallet
///
/// If service keys or JWTs are configured, the request needs a service key: users can't credit
/// themselves. A balance above `USHER_WALLET_LIMIT` is refused.
#[utoipa::path(
    post,
    path = "/v1/wallet/charges",
    operation_id = "chargeWallet",
    tag = "wallet",
    request_body = NewLedgerEntry,
    params(("Idempotency-Key" = String, Header)),
    responses(
        (status = 201, body = LedgerEntryDto),
        (status = 202, body = LedgerEntryDto,
            description = "The money is added, but not yet confirmed as durable."),
        (status = 400, body = ProblemDetails),
        (status = 401, body = ProblemDetails),
        (status = 403, body = ProblemDetails, description = "`forbidden`"),
        (status = 422, body = ProblemDetails,
            description = "`balance_limit_exceeded`, `idempotency_key_reused`"),
    ),
    security(("user" = []))
)]
async fn charge(
    State(wallet): State<Arc<WalletService>>,
    axum::Extension(callers): axum::Extension<Arc<IdentityResolver>>,
    caller: CallerIdentity,
    key: IdempotencyKey,
    OriginalUri(uri): OriginalUri,
    new: JsonBodyWithBytes<NewLedgerEntry>,
) -> Result<CreatedEntry, ProblemDetails> {
    if callers.only_services_charge() && !caller.by_service {
        return Err(ProblemDetails::forbidden("A charge requires a service key."));
    }
    let keyed = keyed(caller.user, &key, uri.path(), &new.bytes);
    let reference = new.value.reference.map(|reference| reference.0);
    let charged = wallet.charge(keyed, new.value.amount.0, reference.clone()).await?;
    Ok(created(LedgerEntryKind::Charge, reference, charged))
}

/// Take money out of the caller's wallet
#[utoipa::path(
    post,
    path = "/v1/wallet/uses",
    operation_id = "useWallet",
    tag = "wallet",
    request_body = NewLedgerEntry,
    params(("Idempotency-Key" = String, Header)),
    responses(
        (status = 201, body = LedgerEntryDto),
        (status = 202, body = LedgerEntryDto,
            description = "The money is taken out, but not yet confirmed as durable."),
        (status = 400, body = ProblemDetails),
        (status = 401, body = ProblemDetails),
        (status = 402, body = ProblemDetails, description = "`insufficient_balance`"),
        (status = 422, body = ProblemDetails, description = "`idempotency_key_reused`"),
    ),
    security(("user" = []))
)]
async fn spend(
    State(wallet): State<Arc<WalletService>>,
    AuthenticatedUser(user): AuthenticatedUser,
    key: IdempotencyKey,
    OriginalUri(uri): OriginalUri,
    new: JsonBodyWithBytes<NewLedgerEntry>,
) -> Result<CreatedEntry, ProblemDetails> {
    let keyed = keyed(user, &key, uri.path(), &new.bytes);
    let reference = new.value.reference.map(|reference| reference.0);
    let used = wallet.spend(keyed, new.value.amount.0, reference.clone()).await?;
    Ok(created(LedgerEntryKind::Use, reference, used))
}

fn keyed(user: UserId, key: &IdempotencyKey, path: &str, body: &[u8]) -> KeyedRequest {
    KeyedRequest {
        user,
        key: key.as_str().to_owned(),
        fingerprint: fingerprint(&Method::POST, path, body),
    }
}

impl From<Error> for ProblemDetails {
    fn from(error: Error) -> Self {
        match error {
            Error::InsufficientBalance => Self::new(
                StatusCode::PAYMENT_REQUIRED,
                "insufficient_balance",
                "The balance is insufficient.",
            ),
            Error::BalanceLimitExceeded => Self::new(
                StatusCode::UNPROCESSABLE_ENTITY,
                "balance_limit_exceeded",
                "The balance would exceed the maximum of a wallet.",
            ),
            Error::KeyReused => Self::new(
                StatusCode::UNPROCESSABLE_ENTITY,
                "idempotency_key_reused",
                "This idempotency key was used for a different request.",
            ),
            Error::Store(error) => error.into(),
        }
    }
}

/// Parses the request bodies of these routes, for `fuzz_tests`.
#[cfg(test)]
pub(crate) fn read_bodies(bytes: &[u8]) {
    crate::http::json::parse_as::<NewLedgerEntry>(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::future_size::{self, MAX_BYTES, any};

    #[test]
    fn futures_of_frequent_handlers_are_small() {
        assert!(future_size::of(|| charge(any(), any(), any(), any(), any(), any())) <= MAX_BYTES);
        assert!(future_size::of(|| spend(any(), any(), any(), any(), any())) <= MAX_BYTES);
    }
}
