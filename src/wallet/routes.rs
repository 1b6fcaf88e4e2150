//! The wallet over HTTP.

use std::sync::Arc;

use axum::extract::{OriginalUri, State};
use axum::http::{HeaderName, Method, StatusCode};
use axum::response::AppendHeaders;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::{Answer, Entry, Error, Wallet};
use crate::http::idempotency::{IdempotencyKey, REPLAYED_HEADER, fingerprint};
use crate::http::identity::{Caller, Callers, User};
use crate::http::page::Limit;
use crate::http::query::Query;
use crate::http::{Json, JsonBytes, Problem};
use crate::idempotency::Keyed;
use crate::ids::{EntryId, UserId};
use crate::money::{self, Money};
use crate::outbox::event::EntryKind;
use crate::time::Millis;

/// The routes of the wallet.
pub fn router() -> OpenApiRouter<Arc<Wallet>> {
    OpenApiRouter::new()
        .routes(routes!(show))
        .routes(routes!(charge))
        .routes(routes!(use_up))
        .routes(routes!(entries))
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Wallet)]
struct WalletDto {
    user_id: UserId,
    balance: Money,
}

/// A positive amount.
#[derive(Debug, Clone, Copy, ToSchema)]
#[schema(value_type = i64, minimum = 1, maximum = 9_007_199_254_740_991_i64)]
struct Amount(Money);

impl<'de> Deserialize<'de> for Amount {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let minor = i64::deserialize(from)?;
        let amount = Money::new(minor).filter(|amount| *amount > Money::ZERO).map(Self);
        amount.ok_or_else(|| serde::de::Error::custom(format_args!("must be from 1 to {}", money::MAX)))
    }
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct NewEntry {
    amount: Amount,
}

#[derive(Debug, Clone, Copy, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum Kind {
    Charge,
    Use,
    Payment,
    Refund,
    Reward,
}

impl From<EntryKind> for Kind {
    fn from(kind: EntryKind) -> Self {
        match kind {
            EntryKind::Charge => Self::Charge,
            EntryKind::Use => Self::Use,
            EntryKind::Payment => Self::Payment,
            EntryKind::Refund => Self::Refund,
            EntryKind::Reward => Self::Reward,
        }
    }
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = WalletEntry)]
struct EntryDto {
    id: EntryId,
    kind: Kind,
    amount: Money,
    balance: Money,
    created_at: Millis,
}

type Created = (StatusCode, AppendHeaders<Option<(HeaderName, &'static str)>>, Json<EntryDto>);

fn created(kind: Kind, answer: Answer) -> Created {
    let Entry { id, amount, balance, at } = answer.entry;
    let status = if answer.written { StatusCode::CREATED } else { StatusCode::ACCEPTED };
    let replayed = answer.replayed.then_some((REPLAYED_HEADER, "true"));
    let body = EntryDto { id, kind, amount, balance, created_at: Millis(at) };
    (status, AppendHeaders(replayed), Json(body))
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
struct Page {
    /// How many lines, 1–500; 50 if left out.
    #[serde(default)]
    limit: Limit,
    /// The `next` of the page before.
    #[param(value_type = Option<String>)]
    before: Option<Before>,
}

/// The position of the last line of the page before.
#[derive(Debug, Clone, Copy)]
struct Before(i64);

impl<'de> Deserialize<'de> for Before {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        let position = text.parse().ok().filter(|position| *position >= 0).map(Self);
        position.ok_or_else(|| serde::de::Error::custom("must be the `next` of a page before"))
    }
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = WalletEntries)]
struct EntriesDto {
    items: Vec<EntryDto>,
    next: Option<String>,
}

/// The ledger, newest first.
#[utoipa::path(get, path = "/v1/wallet/entries", tag = "wallet", params(Page),
    responses((status = 200, body = EntriesDto), (status = 401, body = Problem), (status = 422, body = Problem)), security(("user" = [])))]
async fn entries(
    State(wallet): State<Arc<Wallet>>,
    User(user): User,
    Query(page): Query<Page>,
) -> Result<Json<EntriesDto>, Problem> {
    let (lines, more) = wallet.entries(user, page.before.map(|before| before.0), page.limit.get()).await?;
    let next = lines.last().filter(|_| more).map(|line| line.position.to_string());
    let items = lines.into_iter().map(|line| {
        let Entry { id, amount, balance, at } = line.entry;
        EntryDto { id, kind: line.kind.into(), amount, balance, created_at: Millis(at) }
    });
    Ok(Json(EntriesDto { items: items.collect(), next }))
}

/// The balance; 0 for a user never seen.
#[utoipa::path(get, path = "/v1/wallet", tag = "wallet",
    responses((status = 200, body = WalletDto), (status = 401, body = Problem)), security(("user" = [])))]
async fn show(State(wallet): State<Arc<Wallet>>, User(user_id): User) -> Result<Json<WalletDto>, Problem> {
    let balance = wallet.balance(user_id).await?;
    Ok(Json(WalletDto { user_id, balance }))
}

/// Puts money in. Where service keys or JWTs are on, only a service may: users don't credit themselves.
#[utoipa::path(post, path = "/v1/wallet/charges", tag = "wallet", request_body = NewEntry, params(("Idempotency-Key" = String, Header)),
    responses((status = 201, body = EntryDto), (status = 202, body = EntryDto, description = "Done, and not yet known to be durable."),
        (status = 400, body = Problem), (status = 401, body = Problem),
        (status = 403, body = Problem, description = "`forbidden`"),
        (status = 422, body = Problem, description = "`balance_limit_exceeded`, `idempotency_key_reused`")), security(("user" = [])))]
async fn charge(
    State(wallet): State<Arc<Wallet>>,
    axum::Extension(callers): axum::Extension<Arc<Callers>>,
    caller: Caller,
    key: IdempotencyKey,
    OriginalUri(uri): OriginalUri,
    new: JsonBytes<NewEntry>,
) -> Result<Created, Problem> {
    if callers.only_services_charge() && !caller.by_service {
        return Err(Problem::forbidden("A charge needs a service key."));
    }
    let keyed = keyed(caller.user, &key, uri.path(), &new.bytes);
    let charged = wallet.charge(keyed, new.value.amount.0).await?;
    Ok(created(Kind::Charge, charged))
}

/// Takes money out.
#[utoipa::path(post, path = "/v1/wallet/uses", tag = "wallet", request_body = NewEntry, params(("Idempotency-Key" = String, Header)),
    responses((status = 201, body = EntryDto), (status = 202, body = EntryDto, description = "Done, and not yet known to be durable."),
        (status = 400, body = Problem), (status = 401, body = Problem),
        (status = 402, body = Problem, description = "`insufficient_balance`"), (status = 422, body = Problem)), security(("user" = [])))]
async fn use_up(
    State(wallet): State<Arc<Wallet>>,
    User(user): User,
    key: IdempotencyKey,
    OriginalUri(uri): OriginalUri,
    new: JsonBytes<NewEntry>,
) -> Result<Created, Problem> {
    let used = wallet.use_up(keyed(user, &key, uri.path(), &new.bytes), new.value.amount.0).await?;
    Ok(created(Kind::Use, used))
}

fn keyed(user: UserId, key: &IdempotencyKey, path: &str, body: &[u8]) -> Keyed {
    Keyed { user, key: key.as_str().to_owned(), fingerprint: fingerprint(&Method::POST, path, body) }
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        let text = error.to_string();
        match error {
            Error::InsufficientBalance => {
                Self::new(StatusCode::PAYMENT_REQUIRED, "insufficient_balance", text)
            }
            Error::BalanceLimitExceeded => {
                Self::new(StatusCode::UNPROCESSABLE_ENTITY, "balance_limit_exceeded", text)
            }
            Error::KeyReused => Self::new(StatusCode::UNPROCESSABLE_ENTITY, "idempotency_key_reused", text),
            Error::Redis(error) => error.into(),
            Error::Mysql(error) => error.into(),
        }
    }
}

/// Reads bodies of the kinds that this room takes, for `fuzz_tests`.
#[cfg(test)]
pub(crate) fn read_bodies(bytes: &[u8]) {
    crate::http::json::try_as::<NewEntry>(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::weight::{self, MOST, any};

    #[test]
    fn busy_handlers_are_light() {
        assert!(weight::of(|| charge(any(), any(), any(), any(), any(), any())) <= MOST);
        assert!(weight::of(|| use_up(any(), any(), any(), any(), any())) <= MOST);
    }
}
