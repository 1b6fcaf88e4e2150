//! Parameters of the path.
//!
//! On most routes an invalid id is 404, because no such thing can exist. On routes that create a
//! thing under the id in the path it is 422, with the reason.

use axum::extract::path::ErrorKind;
use axum::extract::rejection::PathRejection;
use axum::extract::{FromRequestParts, RawPathParams};
use axum::http::request::Parts;
use serde::de::DeserializeOwned;

use super::problem::ProblemDetails;

/// Path parameters of existing things: an invalid id is 404.
#[derive(Debug, Clone)]
pub struct PathParams<T>(pub T);

/// Path parameters of things to create: an invalid id is 422 with the name of the parameter.
#[derive(Debug, Clone)]
pub struct NewPathParams<T>(pub T);

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for PathParams<T> {
    type Rejection = ProblemDetails;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ProblemDetails> {
        match axum::extract::Path::from_request_parts(parts, state).await {
            Ok(axum::extract::Path(value)) => Ok(Self(value)),
            Err(rejection) => Err(if is_client_error(&rejection) {
                ProblemDetails::not_found()
            } else {
                internal(&rejection)
            }),
        }
    }
}

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for NewPathParams<T> {
    type Rejection = ProblemDetails;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ProblemDetails> {
        let rejection = match axum::extract::Path::from_request_parts(parts, state).await {
            Ok(axum::extract::Path(value)) => return Ok(Self(value)),
            Err(rejection) => rejection,
        };
        if !is_client_error(&rejection) {
            return Err(internal(&rejection));
        }
        let (field, message) = match rejection {
            PathRejection::FailedToDeserializePathParams(failed) => match failed.into_kind() {
                ErrorKind::DeserializeError { key, message, .. } => (Some(key), message),
                ErrorKind::ParseErrorAtKey { key, expected_type, .. } => {
                    (Some(key), format!("must be {expected_type}"))
                }
                ErrorKind::InvalidUtf8InPathParam { key } => {
                    (Some(key), "must be UTF-8".to_owned())
                }
                ErrorKind::Message(message) => (None, message),
                other => (None, other.to_string()),
            },
            other => (None, other.to_string()),
        };
        Err(ProblemDetails::invalid_field(
            match field {
                Some(field) => field,
                None => only_parameter(parts, state).await,
            },
            message,
        ))
    }
}

/// An error of positional parameters does not name the parameter. A single one can be named anyway.
async fn only_parameter<S: Send + Sync>(parts: &mut Parts, state: &S) -> String {
    let parameters = RawPathParams::from_request_parts(parts, state).await;
    let names: Vec<_> = parameters.iter().flatten().map(|(name, _)| name).collect();
    if let [name] = names[..] { name.to_owned() } else { "path".to_owned() }
}

/// Whether the path of the request is invalid, and not the route's own parameters.
fn is_client_error(rejection: &PathRejection) -> bool {
    match rejection {
        PathRejection::FailedToDeserializePathParams(failed) => !matches!(
            failed.kind(),
            ErrorKind::WrongNumberOfParameters { .. } | ErrorKind::UnsupportedType { .. }
        ),
        _ => false,
    }
}

fn internal(rejection: &PathRejection) -> ProblemDetails {
    tracing::error!(error = %rejection, "the parameters of a route do not fit its handler");
    ProblemDetails::internal()
}

#[cfg(test)]
mod tests {
    use super::super::problem::tests::read;
    use super::*;
    use crate::ids::{QueueId, ReservationId, UserId};
    use axum::Router;
    use axum::body::Body;
    use axum::http::Request;
    use axum::routing::get;
    use tower::ServiceExt;

    async fn ask(path: &str) -> (u16, serde_json::Value) {
        let app: Router = Router::new()
            .route(
                "/queues/{queue}",
                get(|PathParams(queue): PathParams<QueueId>| async move { queue.to_string() }),
            )
            .route(
                "/reservations/{id}",
                get(|PathParams(id): PathParams<ReservationId>| async move { id.to_string() }),
            )
            .route(
                "/admin/queues/{queue}",
                get(
                    |NewPathParams(queue): NewPathParams<QueueId>| async move { queue.to_string() },
                ),
            )
            .route(
                "/admin/both/{queue}/{user}",
                get(|NewPathParams(_): NewPathParams<(QueueId, UserId)>| async {}),
            )
            .route("/wrong/{a}/{b}", get(|PathParams(_): PathParams<QueueId>| async {}));
        let (status, _, body) =
            read(app.oneshot(Request::get(path).body(Body::empty()).unwrap()).await.unwrap()).await;
        (status.as_u16(), body)
    }

    #[tokio::test]
    async fn valid_ids_are_accepted() {
        assert_eq!(ask("/queues/demo").await.0, 200);
        assert_eq!(ask("/reservations/00000000-0000-8000-8000-000000000001").await.0, 200);
        assert_eq!(ask("/admin/queues/demo").await.0, 200);
    }

    #[tokio::test]
    async fn invalid_id_is_not_found() {
        for path in [
            "/queues/a%20b",
            "/queues/%ff",
            "/queues/%7Bp1%7D",
            "/reservations/x",
            "/reservations/1",
        ] {
            let (status, body) = ask(path).await;
            assert_eq!((status, &body["code"]), (404, &"not_found".into()), "{path}");
        }
    }

    #[tokio::test]
    async fn invalid_new_id_is_rejected() {
        for (path, field) in [
            ("/admin/queues/a%20b", "queue"),
            ("/admin/queues/%ff", "queue"),
            ("/admin/both/a%20b/00000000-0000-4000-8000-000000000001", "path"),
            ("/admin/both/a/b%20c", "path"),
        ] {
            let (status, body) = ask(path).await;
            assert_eq!(
                (status, &body["errors"][0]["field"]),
                (422, &field.into()),
                "{path}: {body}"
            );
        }
    }

    #[tokio::test]
    async fn route_that_does_not_fit_its_handler_is_internal() {
        assert_eq!(ask("/wrong/a/b").await.0, 500);
    }
}
