//! The identity of the caller.
//!
//! It is the header `Usher-User`, either alone (mode `header`, when a gateway authenticates users)
//! or with a service key, or the `sub` of a JWT. With service keys or JWTs enabled, an invalid
//! `Authorization` header is always 401, even if `Usher-User` alone would be enough.

use std::sync::Arc;

use axum::extract::FromRequestParts;
use axum::http::HeaderMap;
use axum::http::request::Parts;
use secrecy::SecretString;

use super::jwt;
use super::problem::ProblemDetails;
use super::secret::{BearerToken, KeyDigest, bearer};
use super::user_limit::count_user;
use crate::ids::UserId;

pub const USER_HEADER: &str = "usher-user";

/// The accepted ways to identify users.
#[derive(Debug, Clone, Default)]
pub struct IdentitySettings {
    /// Accept `Usher-User` without further proof.
    pub header: bool,
    /// Accept `Usher-User` together with one of these keys. Empty: disabled.
    pub service_keys: Vec<SecretString>,
    /// Accept JWTs that these keys signed.
    pub jwt: Option<jwt::JwtSettings>,
}

/// Identifies identities. All requests share it.
#[derive(Debug)]
pub struct IdentityResolver {
    header: bool,
    service_keys: Vec<KeyDigest>,
    jwt: Option<Arc<jwt::JwtVerifier>>,
}

/// A user, and whether a trusted backend calls on behalf of the user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CallerIdentity {
    pub user: UserId,
    /// The request carries a valid service key.
    pub by_service: bool,
}

/// The calling user. 401 `unauthenticated` without one.
#[derive(Debug, Clone, Copy)]
pub struct AuthenticatedUser(pub UserId);

/// The calling user, if the request names one. A wrong key or an invalid user id is still 401.
#[derive(Debug, Clone, Copy)]
pub struct OptionalUser(pub Option<UserId>);

impl IdentityResolver {
    /// # Errors
    /// When the JWKS file can't be read or is not usable.
    pub fn new(settings: &IdentitySettings) -> Result<Self, jwt::InvalidJwtKeys> {
        let jwt = settings.jwt.clone().map(jwt::JwtVerifier::new).transpose()?.map(Arc::new);
        let service_keys = settings.service_keys.iter().map(KeyDigest::of).collect();
        Ok(Self { header: settings.header, service_keys, jwt })
    }

    /// Whether only services may charge wallets. Without service keys and JWTs any caller may.
    pub fn only_services_charge(&self) -> bool {
        !self.service_keys.is_empty() || self.jwt.is_some()
    }

    /// Whether a visitor without identity may get a generated user id. Only in mode `header`, in
    /// which a caller can choose any id anyway.
    pub fn accepts_guests(&self) -> bool {
        self.header
    }

    /// The verifier of JWTs, if they are enabled.
    pub fn jwt(&self) -> Option<Arc<jwt::JwtVerifier>> {
        self.jwt.clone()
    }

    /// The caller that the headers identify. `None` when they identify none.
    ///
    /// # Errors
    /// 401 `unauthenticated` when the headers are invalid.
    pub fn identify(&self, headers: &HeaderMap) -> Result<Option<CallerIdentity>, ProblemDetails> {
        let named = named_user(headers)?;
        let uses_authorization = !self.service_keys.is_empty() || self.jwt.is_some();
        match bearer(headers) {
            BearerToken::Unreadable if uses_authorization => Err(ProblemDetails::unauthenticated(
                "Authorization must be `Bearer <service key or JWT>`.",
            )),
            BearerToken::Key(key) if uses_authorization => self.authenticate(key, named),
            _ if named.is_some() && !self.header => Err(ProblemDetails::unauthenticated(
                "Usher-User requires a service key or a JWT in the header Authorization.",
            )),
            _ => Ok(named.map(|user| CallerIdentity { user, by_service: false })),
        }
    }

    /// A service key authenticates the user in `Usher-User`. A JWT authenticates its own user.
    fn authenticate(
        &self,
        presented: &str,
        named: Option<UserId>,
    ) -> Result<Option<CallerIdentity>, ProblemDetails> {
        if self.is_service_key(presented) {
            return Ok(named.map(|user| CallerIdentity { user, by_service: true }));
        }
        let Some(jwt) = &self.jwt else {
            return Err(ProblemDetails::unauthenticated("The service key is wrong."));
        };
        let user = jwt
            .user(presented)
            .map_err(|rejection| ProblemDetails::unauthenticated(rejection.to_string()))?;
        if named.is_some_and(|named| named != user) {
            return Err(ProblemDetails::unauthenticated(
                "Usher-User must be equal to the `sub` of the JWT.",
            ));
        }
        Ok(Some(CallerIdentity { user, by_service: false }))
    }

    /// Compares all keys, so that the time does not reveal which key matched.
    fn is_service_key(&self, presented: &str) -> bool {
        self.service_keys.iter().fold(false, |found, key| key.matches(presented) | found)
    }
}

fn named_user(headers: &HeaderMap) -> Result<Option<UserId>, ProblemDetails> {
    let mut all = headers.get_all(USER_HEADER).iter();
    let Some(first) = all.next() else { return Ok(None) };
    if all.next().is_some() {
        return Err(ProblemDetails::unauthenticated("Usher-User must be given only once."));
    }
    let user = first.to_str().ok().and_then(|text| text.trim().parse().ok());
    user.map(Some).ok_or_else(|| ProblemDetails::unauthenticated("Usher-User must be a UUID."))
}

fn identify(parts: &mut Parts) -> Result<Option<CallerIdentity>, ProblemDetails> {
    let identities = parts.extensions.get::<Arc<IdentityResolver>>().ok_or_else(|| {
        tracing::error!("the router has no IdentityResolver extension: edge::layers is missing");
        ProblemDetails::internal()
    })?;
    let caller = identities.identify(&parts.headers)?;
    if let Some(caller) = caller {
        count_user(parts, caller.user)?;
    }
    Ok(caller)
}

impl<S: Send + Sync> FromRequestParts<S> for CallerIdentity {
    type Rejection = ProblemDetails;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ProblemDetails> {
        identify(parts)?
            .ok_or_else(|| ProblemDetails::unauthenticated("The header Usher-User is missing."))
    }
}

impl<S: Send + Sync> FromRequestParts<S> for AuthenticatedUser {
    type Rejection = ProblemDetails;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ProblemDetails> {
        CallerIdentity::from_request_parts(parts, state).await.map(|caller| Self(caller.user))
    }
}

impl<S: Send + Sync> FromRequestParts<S> for OptionalUser {
    type Rejection = ProblemDetails;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ProblemDetails> {
        identify(parts).map(|caller| Self(caller.map(|caller| caller.user)))
    }
}

#[cfg(test)]
mod tests {
    use super::super::rate_limit::RateLimitStatus;
    use super::super::user_limit::{UserRateLimit, UserRateLimiter};
    use super::*;

    struct Unlimited;

    impl UserRateLimiter for Unlimited {
        fn check(&self, _: UserId, _: &Parts) -> Result<Option<RateLimitStatus>, ProblemDetails> {
            Ok(None)
        }
    }

    const USER: &str = "00000000-0000-4000-8000-000000000001";
    const KEY: &str = "service-key-of-a-booking-backend-1";

    fn identities(header: bool, keys: &[&str]) -> IdentityResolver {
        let service_keys = keys.iter().map(|key| SecretString::from(*key)).collect();
        IdentityResolver::new(&IdentitySettings { header, service_keys, jwt: None }).unwrap()
    }

    fn headers(user: Option<&str>, authorization: Option<&str>) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in [(USER_HEADER, user), ("authorization", authorization)] {
            if let Some(value) = value {
                headers.insert(name, value.parse().unwrap());
            }
        }
        headers
    }

    /// `Some(by_service)`, `None` without a caller, or the status 401.
    fn outcome(
        identities: &IdentityResolver,
        user: Option<&str>,
        authorization: Option<&str>,
    ) -> Result<Option<bool>, u16> {
        match identities.identify(&headers(user, authorization)) {
            Ok(caller) => Ok(caller.map(|caller| {
                assert_eq!(caller.user.to_string(), USER);
                caller.by_service
            })),
            Err(problem) => Err(problem.status().as_u16()),
        }
    }

    #[test]
    fn header_mode_accepts_the_header() {
        let identities = identities(true, &[]);
        assert_eq!(outcome(&identities, Some(USER), None), Ok(Some(false)));
        assert_eq!(
            outcome(&identities, Some(USER), Some("Bearer of-the-gateway")),
            Ok(Some(false))
        );
        assert_eq!(outcome(&identities, None, None), Ok(None));
        for bad in ["", "x", "00000000000040008000000000000001"] {
            assert_eq!(outcome(&identities, Some(bad), None), Err(401), "{bad}");
        }
    }

    #[test]
    fn service_mode_requires_a_key() {
        let identities = identities(false, &["another-service-key-of-32-letters", KEY]);
        let good = format!("Bearer {KEY}");
        assert_eq!(outcome(&identities, Some(USER), Some(&good)), Ok(Some(true)));
        assert_eq!(outcome(&identities, None, Some(&good)), Ok(None));
        assert_eq!(outcome(&identities, Some(USER), None), Err(401));
        assert_eq!(outcome(&identities, Some("x"), Some(&good)), Err(401));
        for bad in ["Bearer wrong", "Bearer ", KEY, "Basic abc"] {
            assert_eq!(outcome(&identities, Some(USER), Some(bad)), Err(401), "{bad}");
        }
    }

    #[test]
    fn wrong_key_is_refused_even_in_header_mode() {
        let identities = identities(true, &[KEY]);
        assert_eq!(outcome(&identities, Some(USER), None), Ok(Some(false)));
        assert_eq!(
            outcome(&identities, Some(USER), Some(&format!("Bearer {KEY}"))),
            Ok(Some(true))
        );
        assert_eq!(outcome(&identities, Some(USER), Some("Bearer wrong")), Err(401));
        assert_eq!(outcome(&identities, None, Some("Bearer wrong")), Err(401));
    }

    #[test]
    fn two_user_headers_are_refused() {
        let mut two = headers(Some(USER), None);
        two.append(USER_HEADER, USER.parse().unwrap());
        assert_eq!(identities(true, &[]).identify(&two).unwrap_err().code(), "unauthenticated");
    }

    #[tokio::test]
    async fn extractors_require_or_accept_a_user() {
        let (mut parts, ()) = axum::http::Request::new(()).into_parts();
        assert_eq!(
            AuthenticatedUser::from_request_parts(&mut parts, &()).await.unwrap_err().code(),
            "internal"
        );
        parts.extensions.insert(Arc::new(identities(true, &[])));
        parts.extensions.insert(UserRateLimit(Arc::new(Unlimited)));
        assert_eq!(
            AuthenticatedUser::from_request_parts(&mut parts, &()).await.unwrap_err().code(),
            "unauthenticated"
        );
        assert!(OptionalUser::from_request_parts(&mut parts, &()).await.unwrap().0.is_none());
        parts.headers = headers(Some(USER), None);
        assert_eq!(
            AuthenticatedUser::from_request_parts(&mut parts, &()).await.unwrap().0.to_string(),
            USER
        );
        assert!(OptionalUser::from_request_parts(&mut parts, &()).await.unwrap().0.is_some());
        parts.headers = headers(Some("x"), None);
        assert!(OptionalUser::from_request_parts(&mut parts, &()).await.is_err());
    }
}
