//! The wallet over HTTP.

use std::sync::Arc;

use axum::extract::{OriginalUri, State};
use axum::http::{HeaderName, Method, StatusCode};
use axum::response::AppendHeaders;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::{Entry, Error, Wallet};
use crate::http::idempotency::{IdempotencyKey, REPLAYED_HEADER, fingerprint};
use crate::http::identity::{Caller, Callers, User};
use crate::http::{Json, JsonBytes, Problem};
use crate::idempotency::Keyed;
use crate::ids::{EntryId, UserId};
use crate::money::{self, Money};
use crate::time::Millis;

/// The routes of the wallet.
pub fn router() -> OpenApiRouter<Arc<Wallet>> {
    OpenApiRouter::new().routes(routes!(show)).routes(routes!(charge)).routes(routes!(use_up))
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

fn created(kind: Kind, (entry, replayed): (Entry, bool)) -> Created {
    let Entry { id, amount, balance, at } = entry;
    let replayed = replayed.then_some((REPLAYED_HEADER, "true"));
    let body = EntryDto { id, kind, amount, balance, created_at: Millis(at) };
    (StatusCode::CREATED, AppendHeaders(replayed), Json(body))
}

/// The balance; 0 for a user never seen.
#[utoipa::path(get, path = "/v1/wallet", tag = "wallet",
    responses((status = 200, body = WalletDto), (status = 401, body = Problem)), security(("user" = [])))]
async fn show(State(wallet): State<Arc<Wallet>>, User(user_id): User) -> Result<Json<WalletDto>, Problem> {
    let balance = wallet.balance(user_id).await?;
    Ok(Json(WalletDto { user_id, balance }))
}

/// Puts money in. Where service keys are on, only a service may: users don't credit themselves.
#[utoipa::path(post, path = "/v1/wallet/charges", tag = "wallet", request_body = NewEntry, params(("Idempotency-Key" = String, Header)),
    responses((status = 201, body = EntryDto), (status = 400, body = Problem), (status = 401, body = Problem),
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
    if callers.has_service_keys() && !caller.by_service {
        return Err(Problem::forbidden("A charge needs a service key."));
    }
    let keyed = keyed(caller.user, &key, uri.path(), &new.bytes);
    let charged = wallet.charge(keyed, new.value.amount.0).await?;
    Ok(created(Kind::Charge, charged))
}

/// Takes money out.
#[utoipa::path(post, path = "/v1/wallet/uses", tag = "wallet", request_body = NewEntry, params(("Idempotency-Key" = String, Header)),
    responses((status = 201, body = EntryDto), (status = 400, body = Problem), (status = 401, body = Problem),
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
        }
    }
}
