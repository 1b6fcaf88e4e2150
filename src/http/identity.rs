//! Who is calling: `Usher-User`, by itself where a gateway in front vouches for it, or vouched for by a service key; or the `sub` of a JWT.
//!
//! With service keys or JWTs on, an `Authorization` header is a claim that must hold: one that is neither a key nor a good token is 401 even where
//! the bare header would do.

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

/// The header that names the user.
pub const USER_HEADER: &str = "usher-user";

/// How users are known.
#[derive(Debug, Clone, Default)]
pub struct IdentitySettings {
    /// `Usher-User` is believed by itself.
    pub header: bool,
    /// `Usher-User` is believed beside one of these keys; empty is off.
    pub service_keys: Vec<SecretString>,
    /// JWTs are believed that these keys have signed.
    pub jwt: Option<jwt::JwtSettings>,
}

/// Knows callers. Shared by all requests.
#[derive(Debug)]
pub struct IdentityResolver {
    header: bool,
    service_keys: Vec<KeyDigest>,
    jwt: Option<Arc<jwt::JwtVerifier>>,
}

/// A user, and whether a trusted backend speaks for them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CallerIdentity {
    /// The user.
    pub user: UserId,
    /// A service key vouches for the user.
    pub by_service: bool,
}

/// The user who calls; 401 `unauthenticated` without one.
#[derive(Debug, Clone, Copy)]
pub struct AuthenticatedUser(pub UserId);

/// The user who calls, if the request says. A wrong key or a broken name is still 401: a claim that does not hold is not silence.
#[derive(Debug, Clone, Copy)]
pub struct OptionalUser(pub Option<UserId>);

impl IdentityResolver {
    /// From the settings.
    ///
    /// # Errors
    /// When the JWKS file can't be read or used.
    pub fn new(settings: &IdentitySettings) -> Result<Self, jwt::InvalidJwtKeys> {
        let jwt = settings.jwt.clone().map(jwt::JwtVerifier::new).transpose()?.map(Arc::new);
        let service_keys = settings.service_keys.iter().map(KeyDigest::of).collect();
        Ok(Self { header: settings.header, service_keys, jwt })
    }

    /// Whether money may be put in by a service alone: it may where users are known by something better than a bare header.
    pub fn only_services_charge(&self) -> bool {
        !self.service_keys.is_empty() || self.jwt.is_some()
    }

    /// Whether a visitor whom nobody vouches for may be given a name: where bare headers are believed anybody may be anybody already.
    pub fn take_guests(&self) -> bool {
        self.header
    }

    /// What checks JWTs, where they are on.
    pub fn jwt(&self) -> Option<Arc<jwt::JwtVerifier>> {
        self.jwt.clone()
    }

    /// Who calls with these headers; `None` when they say nothing about it.
    ///
    /// # Errors
    /// 401 `unauthenticated` when what they say does not hold.
    pub fn identify(&self, headers: &HeaderMap) -> Result<Option<CallerIdentity>, ProblemDetails> {
        let named = named_user(headers)?;
        let looked_at = !self.service_keys.is_empty() || self.jwt.is_some();
        match bearer(headers) {
            BearerToken::Unreadable if looked_at => Err(ProblemDetails::unauthenticated(
                "Authorization must be `Bearer <key or token>`.",
            )),
            BearerToken::Key(key) if looked_at => self.vouched_for(key, named),
            _ if named.is_some() && !self.header => Err(ProblemDetails::unauthenticated(
                "Usher-User needs something beside it that vouches for it.",
            )),
            _ => Ok(named.map(|user| CallerIdentity { user, by_service: false })),
        }
    }

    /// A service key vouches for the user that is named, a JWT for its own.
    fn vouched_for(
        &self,
        presented: &str,
        named: Option<UserId>,
    ) -> Result<Option<CallerIdentity>, ProblemDetails> {
        if self.is_service_key(presented) {
            return Ok(named.map(|user| CallerIdentity { user, by_service: true }));
        }
        let Some(jwt) = &self.jwt else {
            return Err(ProblemDetails::unauthenticated("The service key is not known."));
        };
        let user = jwt
            .user(presented)
            .map_err(|refused| ProblemDetails::unauthenticated(refused.to_string()))?;
        if named.is_some_and(|named| named != user) {
            return Err(ProblemDetails::unauthenticated(
                "Usher-User and the token's `sub` must be the same user.",
            ));
        }
        Ok(Some(CallerIdentity { user, by_service: false }))
    }

    /// Every key is compared, so that the time doesn't tell which one was nearly right.
    fn is_service_key(&self, presented: &str) -> bool {
        self.service_keys.iter().fold(false, |found, key| key.matches(presented) | found)
    }
}

fn named_user(headers: &HeaderMap) -> Result<Option<UserId>, ProblemDetails> {
    let mut all = headers.get_all(USER_HEADER).iter();
    let Some(first) = all.next() else { return Ok(None) };
    if all.next().is_some() {
        return Err(ProblemDetails::unauthenticated("Usher-User must be given once."));
    }
    let user = first.to_str().ok().and_then(|text| text.trim().parse().ok());
    user.map(Some).ok_or_else(|| ProblemDetails::unauthenticated("Usher-User must be a UUID."))
}

fn identify(parts: &mut Parts) -> Result<Option<CallerIdentity>, ProblemDetails> {
    let callers = parts.extensions.get::<Arc<IdentityResolver>>().ok_or_else(|| {
        tracing::error!("the router lacks http::layers: nobody can be known");
        ProblemDetails::internal()
    })?;
    let caller = callers.identify(&parts.headers)?;
    if let Some(caller) = caller {
        count_user(parts, caller.user)?;
    }
    Ok(caller)
}

impl<S: Send + Sync> FromRequestParts<S> for CallerIdentity {
    type Rejection = ProblemDetails;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ProblemDetails> {
        identify(parts)?.ok_or_else(|| ProblemDetails::unauthenticated("Usher-User is missing."))
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
    use super::super::user_limit::{UserRateLimit, UserRateLimiter};
    use super::*;

    struct Unlimited;

    impl UserRateLimiter for Unlimited {
        fn check(&self, _: UserId, _: &Parts) -> Result<(), ProblemDetails> {
            Ok(())
        }
    }

    const USER: &str = "00000000-0000-4000-8000-000000000001";
    const KEY: &str = "service-key-of-a-booking-backend-1";

    fn callers(header: bool, keys: &[&str]) -> IdentityResolver {
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

    /// `Some(by_service)`, `None` for nobody, or 401.
    fn outcome(
        callers: &IdentityResolver,
        user: Option<&str>,
        authorization: Option<&str>,
    ) -> Result<Option<bool>, u16> {
        match callers.identify(&headers(user, authorization)) {
            Ok(caller) => Ok(caller.map(|caller| {
                assert_eq!(caller.user.to_string(), USER);
                caller.by_service
            })),
            Err(problem) => Err(problem.status().as_u16()),
        }
    }

    #[test]
    fn header_mode_believes_the_header() {
        let callers = callers(true, &[]);
        assert_eq!(outcome(&callers, Some(USER), None), Ok(Some(false)));
        assert_eq!(outcome(&callers, Some(USER), Some("Bearer of-the-gateway")), Ok(Some(false)));
        assert_eq!(outcome(&callers, None, None), Ok(None));
        for bad in ["", "x", "00000000000040008000000000000001"] {
            assert_eq!(outcome(&callers, Some(bad), None), Err(401), "{bad}");
        }
    }

    #[test]
    fn service_mode_believes_a_key() {
        let callers = callers(false, &["another-service-key-of-32-letters", KEY]);
        let good = format!("Bearer {KEY}");
        assert_eq!(outcome(&callers, Some(USER), Some(&good)), Ok(Some(true)));
        assert_eq!(outcome(&callers, None, Some(&good)), Ok(None));
        assert_eq!(outcome(&callers, Some(USER), None), Err(401));
        assert_eq!(outcome(&callers, Some("x"), Some(&good)), Err(401));
        for bad in ["Bearer wrong", "Bearer ", KEY, "Basic abc"] {
            assert_eq!(outcome(&callers, Some(USER), Some(bad)), Err(401), "{bad}");
        }
    }

    #[test]
    fn a_wrong_key_is_refused_even_where_the_header_would_do() {
        let callers = callers(true, &[KEY]);
        assert_eq!(outcome(&callers, Some(USER), None), Ok(Some(false)));
        assert_eq!(outcome(&callers, Some(USER), Some(&format!("Bearer {KEY}"))), Ok(Some(true)));
        assert_eq!(outcome(&callers, Some(USER), Some("Bearer wrong")), Err(401));
        assert_eq!(outcome(&callers, None, Some("Bearer wrong")), Err(401));
    }

    #[test]
    fn two_names_are_none() {
        let mut two = headers(Some(USER), None);
        two.append(USER_HEADER, USER.parse().unwrap());
        assert_eq!(callers(true, &[]).identify(&two).unwrap_err().code(), "unauthenticated");
    }

    #[tokio::test]
    async fn extractors_need_a_user_or_not() {
        let (mut parts, ()) = axum::http::Request::new(()).into_parts();
        assert_eq!(
            AuthenticatedUser::from_request_parts(&mut parts, &()).await.unwrap_err().code(),
            "internal"
        );
        parts.extensions.insert(Arc::new(callers(true, &[])));
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
