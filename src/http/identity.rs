//! The identity of the caller.
//!
//! It is the header `Usher-User`, either alone (mode `header`, when a gateway authenticates users)
//! or with a service key, or the `sub` of a JWT. With service keys or JWTs enabled, an invalid
//! `Authorization` header is always 401, even if `Usher-User` alone would be enough.
//!
//! In mode `guest`, a visitor without identity can join a queue under a random id. Such a guest
//! owns nothing: only [`QueueVisitor`] admits guests.

use std::sync::Arc;

use axum::extract::FromRequestParts;
use axum::http::HeaderMap;
use axum::http::request::Parts;
use secrecy::SecretString;
use uuid::Uuid;

use super::jwt;
use super::problem::ProblemDetails;
use super::secret::{BearerToken, KeyDigest, bearer};
use super::user_limit::count_user;
use super::user_recorder::{record_user, record_user_in_background};
use crate::ids::{UserId, UserName};

pub const USER_HEADER: &str = "usher-user";

/// The accepted ways to identify users.
#[derive(Debug, Clone, Default)]
pub struct IdentitySettings {
    /// Accept `Usher-User` without further proof.
    pub header: bool,
    /// Let visitors without identity join queues.
    pub guest: bool,
    /// Accept `Usher-User` together with one of these keys. Empty: disabled.
    pub service_keys: Vec<SecretString>,
    /// Let any caller charge wallets, also with service keys or JWTs. For `usher dev`.
    pub anyone_charges: bool,
    /// Accept JWTs that these keys signed.
    pub jwt: Option<jwt::JwtSettings>,
}

/// Identifies callers. All requests share it.
#[derive(Debug)]
pub struct IdentityResolver {
    header: bool,
    guest: bool,
    anyone_charges: bool,
    service_keys: Vec<KeyDigest>,
    jwt: Option<Arc<jwt::JwtVerifier>>,
}

/// A user, and whether a trusted backend calls on behalf of the user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CallerIdentity {
    pub user: UserId,
    /// The id of the user as this request writes it.
    pub name: UserName,
    /// The request carries a valid service key.
    pub by_service: bool,
}

/// The calling user, who may own things. 401 `unauthenticated` without one.
#[derive(Debug, Clone, Copy)]
pub struct AuthenticatedUser(pub UserId);

/// [`AuthenticatedUser`], as this request writes the id.
#[derive(Debug, Clone)]
pub struct NamedUser(pub UserName);

/// A user who joins a queue: the calling user, or a guest where guests are accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueueVisitor {
    pub name: UserName,
    pub is_guest: bool,
}

/// A trusted backend, with the user that it calls for, if it names one. 401 `unauthenticated`
/// without identity, and 403 `forbidden` for a user without a service key.
#[derive(Debug, Clone, Copy)]
pub struct ServiceCaller(pub Option<UserId>);

/// The calling user, if the request names one. A wrong key or an invalid user id is still 401.
#[derive(Debug, Clone)]
pub struct OptionalUser(pub Option<UserName>);

impl IdentityResolver {
    /// # Errors
    /// When the JWKS file can't be read or is not usable.
    pub fn new(settings: &IdentitySettings) -> Result<Self, jwt::InvalidJwtKeys> {
        let jwt = settings.jwt.clone().map(jwt::JwtVerifier::new).transpose()?.map(Arc::new);
        let service_keys = settings.service_keys.iter().map(KeyDigest::of).collect();
        let IdentitySettings { header, guest, anyone_charges, .. } = *settings;
        Ok(Self { header, guest, anyone_charges, service_keys, jwt })
    }

    /// Whether only services may charge wallets. Without service keys and JWTs any caller may.
    pub fn only_services_charge(&self) -> bool {
        !self.anyone_charges && (!self.service_keys.is_empty() || self.jwt.is_some())
    }

    /// A new user for a visitor of the waiting page without identity. In mode `header`, a caller
    /// can choose any id, so the visitor gets a generated one.
    pub fn new_visitor(&self) -> Option<QueueVisitor> {
        let generated = || UserName::from(UserId::from(Uuid::new_v4()));
        (self.guest || self.header)
            .then(|| QueueVisitor { name: generated(), is_guest: self.guest })
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
            _ => Ok(named.map(|name| CallerIdentity::new(name, false))),
        }
    }

    /// A service key authenticates the user in `Usher-User`. A JWT authenticates its own user.
    fn authenticate(
        &self,
        presented: &str,
        named: Option<UserName>,
    ) -> Result<Option<CallerIdentity>, ProblemDetails> {
        if self.is_service_key(presented) {
            return Ok(named.map(|name| CallerIdentity::new(name, true)));
        }
        let Some(jwt) = &self.jwt else {
            return Err(ProblemDetails::unauthenticated("The service key is wrong."));
        };
        let name = jwt
            .user(presented)
            .map_err(|rejection| ProblemDetails::unauthenticated(rejection.to_string()))?;
        if named.is_some_and(|named| named.key() != name.key()) {
            return Err(ProblemDetails::unauthenticated(
                "Usher-User must be equal to the `sub` of the JWT.",
            ));
        }
        Ok(Some(CallerIdentity::new(name, false)))
    }

    /// Whether the headers have a service key.
    fn is_service(&self, headers: &HeaderMap) -> bool {
        matches!(bearer(headers), BearerToken::Key(key) if self.is_service_key(key))
    }

    /// Compares all keys, so that the time does not reveal which key matched.
    fn is_service_key(&self, presented: &str) -> bool {
        self.service_keys.iter().fold(false, |found, key| key.matches(presented) | found)
    }
}

impl CallerIdentity {
    fn new(name: UserName, by_service: bool) -> Self {
        Self { user: name.key(), name, by_service }
    }
}

fn named_user(headers: &HeaderMap) -> Result<Option<UserName>, ProblemDetails> {
    let mut all = headers.get_all(USER_HEADER).iter();
    let Some(first) = all.next() else { return Ok(None) };
    if all.next().is_some() {
        return Err(ProblemDetails::unauthenticated("Usher-User must be given only once."));
    }
    let name = first.to_str().ok().and_then(|text| text.parse().ok());
    name.map(Some).ok_or_else(|| {
        ProblemDetails::unauthenticated(
            "Usher-User must be 1 to 128 visible ASCII characters without spaces.",
        )
    })
}

fn resolver(parts: &Parts) -> Result<&IdentityResolver, ProblemDetails> {
    parts.extensions.get::<Arc<IdentityResolver>>().map(AsRef::as_ref).ok_or_else(|| {
        tracing::error!("the router has no IdentityResolver extension: edge::layers is missing");
        ProblemDetails::internal()
    })
}

fn identify(parts: &mut Parts) -> Result<Option<CallerIdentity>, ProblemDetails> {
    let caller = resolver(parts)?.identify(&parts.headers)?;
    if let Some(caller) = &caller {
        count_user(parts, caller.user)?;
    }
    Ok(caller)
}

impl<S: Send + Sync> FromRequestParts<S> for CallerIdentity {
    type Rejection = ProblemDetails;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ProblemDetails> {
        let caller = identify(parts)?.ok_or_else(missing_identity)?;
        record_user(parts, &caller.name).await?;
        Ok(caller)
    }
}

impl ServiceCaller {
    /// `None` without a service key.
    ///
    /// # Errors
    /// 401 `unauthenticated` when the headers are invalid.
    pub fn identify(parts: &mut Parts) -> Result<Option<Self>, ProblemDetails> {
        if !resolver(parts)?.is_service(&parts.headers) {
            return Ok(None);
        }
        Ok(Some(Self(identify(parts)?.map(|caller| caller.user))))
    }
}

impl<S: Send + Sync> FromRequestParts<S> for ServiceCaller {
    type Rejection = ProblemDetails;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ProblemDetails> {
        if let Some(service) = Self::identify(parts)? {
            return Ok(service);
        }
        Err(match identify(parts)? {
            Some(_) => ProblemDetails::forbidden("This request requires a service key."),
            None => ProblemDetails::unauthenticated("This request requires a service key."),
        })
    }
}

fn missing_identity() -> ProblemDetails {
    ProblemDetails::unauthenticated("This request requires the identity of a user.")
}

impl<S: Send + Sync> FromRequestParts<S> for AuthenticatedUser {
    type Rejection = ProblemDetails;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ProblemDetails> {
        CallerIdentity::from_request_parts(parts, state).await.map(|caller| Self(caller.user))
    }
}

impl<S: Send + Sync> FromRequestParts<S> for NamedUser {
    type Rejection = ProblemDetails;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ProblemDetails> {
        CallerIdentity::from_request_parts(parts, state).await.map(|caller| Self(caller.name))
    }
}

impl<S: Send + Sync> FromRequestParts<S> for QueueVisitor {
    type Rejection = ProblemDetails;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ProblemDetails> {
        if let Some(caller) = identify(parts)? {
            record_user_in_background(parts, &caller.name)?;
            return Ok(Self { name: caller.name, is_guest: false });
        }
        let visitor = resolver(parts)?.new_visitor().filter(|visitor| visitor.is_guest);
        visitor.ok_or_else(missing_identity)
    }
}

impl<S: Send + Sync> FromRequestParts<S> for OptionalUser {
    type Rejection = ProblemDetails;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ProblemDetails> {
        identify(parts).map(|caller| Self(caller.map(|caller| caller.name)))
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
        let settings = IdentitySettings { header, service_keys, ..IdentitySettings::default() };
        IdentityResolver::new(&settings).unwrap()
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
        for bad in ["", "a b", &"x".repeat(129)] {
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
        assert_eq!(outcome(&identities, Some("a b"), Some(&good)), Err(401));
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
        parts.headers = headers(Some("a b"), None);
        assert!(OptionalUser::from_request_parts(&mut parts, &()).await.is_err());
    }
}
