//! The admin routes of payments.

use std::sync::Arc;

use axum::Extension;
use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::PaymentService;
use super::routes::{PaymentDto, dto};
use crate::http::path::PathParams;
use crate::http::{JsonBody, ProblemDetails};
use crate::ids::{PaymentId, UserName};
use crate::users::UserDirectory;

pub fn admin_router() -> OpenApiRouter<Arc<PaymentService>> {
    super::external_routes::admin_router().routes(routes!(show))
}

/// A payment with its user.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = AdminPayment)]
struct AdminPaymentDto {
    #[serde(flatten)]
    payment: PaymentDto,
    user_id: UserName,
}

/// Get a payment of any user
#[utoipa::path(
    get,
    path = "/admin/payments/{id}",
    operation_id = "getAnyPayment",
    tag = "payment",
    params(("id" = PaymentId, Path)),
    responses(
        (status = 200, body = AdminPaymentDto),
        (status = 404, body = ProblemDetails),
    ),
    security(("admin" = []))
)]
async fn show(
    State(payments): State<Arc<PaymentService>>,
    PathParams(id): PathParams<PaymentId>,
    Extension(users): Extension<Arc<UserDirectory>>,
) -> Result<JsonBody<AdminPaymentDto>, ProblemDetails> {
    let found = payments.find_of(id, None).await?;
    let user = found.payment.user;
    let names = users.names(std::iter::once(user)).await?;
    let payment = dto(&payments, found);
    Ok(JsonBody(AdminPaymentDto { payment, user_id: names.of(user) }))
}
