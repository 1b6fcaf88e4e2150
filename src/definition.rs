//! What the definitions that an operator writes have in common: the settings of a queue, a concert,
//! a coupon, a reward.

use std::fmt::Write;

use serde::Serialize;
use serde::de::DeserializeOwned;
use sha2::{Digest, Sha256};

use crate::ids::{ClaimId, ConcertId, IssueId, ReservationId, UserName};
use crate::time::UnixMillis;

/// How many of the things in the way of a change a refusal names.
pub const MAX_IN_USE_ITEMS: usize = 20;

/// A kind of definition, in the form that the admin API takes and returns.
pub trait AdminDefinition: Serialize + DeserializeOwned {
    /// The word for it in paths.
    const KIND: &'static str;
}

/// One rule that a definition breaks. A definition is written only when it breaks none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DefinitionViolation {
    /// The path of the field, such as `sections[0].price`; empty for the whole definition.
    pub field: String,
    /// Why its value is invalid: "must be from 1 to 100".
    pub message: String,
}

impl DefinitionViolation {
    pub fn new(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self { field: field.into(), message: message.into() }
    }
}

/// The version of one definition: it changes with the content of the definition and with nothing
/// else. Definitions with other ids have other values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DefinitionEtag(String);

impl DefinitionEtag {
    pub fn of<T: AdminDefinition>(id: &str, definition: &T) -> Self {
        let content = serde_json::to_vec(definition).unwrap_or_default();
        let mut hash = Sha256::new();
        for part in [T::KIND.as_bytes(), b"/", id.as_bytes(), b" ", &content] {
            hash.update(part);
        }
        let mut tag = String::with_capacity(34);
        tag.push('"');
        for byte in &hash.finalize()[..16] {
            let _ = write!(tag, "{byte:02x}");
        }
        tag.push('"');
        Self(tag)
    }

    /// With its quotation marks, as in the header `ETag`.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The content of `If-Match` or `If-None-Match`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EntityTags {
    /// `*`: any version.
    Any,
    /// The strong tags of a list, with their quotation marks. A weak tag is equal to no version.
    Strong(Vec<String>),
}

impl EntityTags {
    fn contain(&self, current: Option<&DefinitionEtag>) -> bool {
        match (self, current) {
            (_, None) => false,
            (Self::Any, Some(_)) => true,
            (Self::Strong(tags), Some(current)) => tags.contains(&current.0),
        }
    }
}

/// What must be true of a definition when a change of it takes effect.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ChangePreconditions {
    pub if_match: Option<EntityTags>,
    pub if_none_match: Option<EntityTags>,
}

impl ChangePreconditions {
    /// `current` is the stored version, `None` if there is no such definition. Call it where no
    /// other change can happen before this one is written.
    ///
    /// # Errors
    /// When a precondition does not hold.
    pub fn check(&self, current: Option<&DefinitionEtag>) -> Result<(), ChangeRefusal> {
        let matches = self.if_match.as_ref().is_none_or(|tags| tags.contain(current));
        let is_other = self.if_none_match.as_ref().is_none_or(|tags| !tags.contain(current));
        if matches && is_other { Ok(()) } else { Err(ChangeRefusal::PreconditionFailed) }
    }
}

/// Why a change of a definition is refused. Nothing has changed then.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ChangeRefusal {
    NotFound,
    PreconditionFailed,
    Invalid(Vec<DefinitionViolation>),
}

/// Lets `?` turn a [`ChangeRefusal`] into the variants of the same names of an error type.
macro_rules! from_change_refusal {
    ($error:ty) => {
        impl From<crate::definition::ChangeRefusal> for $error {
            fn from(refusal: crate::definition::ChangeRefusal) -> Self {
                use crate::definition::ChangeRefusal;
                match refusal {
                    ChangeRefusal::NotFound => Self::NotFound,
                    ChangeRefusal::PreconditionFailed => Self::PreconditionFailed,
                    ChangeRefusal::Invalid(violations) => Self::Invalid(violations),
                }
            }
        }
    };
}
pub(crate) use from_change_refusal;

/// A definition before and after a change.
#[derive(Debug, Clone)]
pub struct ChangedDefinition<T> {
    /// `None` if the change created it.
    pub before: Option<T>,
    pub after: T,
}

/// One thing that is in the way of a change, in `in_use` of a 409.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum InUseItem {
    SeatHeld { id: ReservationId, seats: Vec<u32>, until: UnixMillis },
    SeatSold { id: ReservationId, seats: Vec<u32> },
    Concert { id: ConcertId },
    User { id: UserName },
    Issue { id: IssueId },
    Claim { id: ClaimId },
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;

    #[derive(Serialize, Deserialize)]
    struct TestDefinition {
        size: u32,
    }

    impl AdminDefinition for TestDefinition {
        const KIND: &'static str = "tests";
    }

    fn etag(id: &str, size: u32) -> DefinitionEtag {
        DefinitionEtag::of(id, &TestDefinition { size })
    }

    fn list(tags: &[&str]) -> Option<EntityTags> {
        Some(EntityTags::Strong(tags.iter().map(|tag| (*tag).to_owned()).collect()))
    }

    #[test]
    fn etag_depends_on_id_and_content() {
        assert_eq!(etag("a", 1), etag("a", 1));
        assert_ne!(etag("a", 1), etag("a", 2));
        assert_ne!(etag("a", 1), etag("b", 1));
        assert_eq!(etag("a", 1).as_str().len(), 34);
    }

    #[test]
    fn preconditions_are_those_of_the_standard() {
        let (stored, other) = (etag("a", 1), etag("a", 2));
        let (exists, missing) = (Some(&stored), None);
        for (if_match, if_none_match, current, holds) in [
            (None, None, missing, true),
            (None, None, exists, true),
            (Some(EntityTags::Any), None, exists, true),
            (Some(EntityTags::Any), None, missing, false),
            (list(&[other.as_str(), stored.as_str()]), None, exists, true),
            (list(&[other.as_str()]), None, exists, false),
            (list(&[stored.as_str()]), None, missing, false),
            (list(&[]), None, exists, false),
            (None, Some(EntityTags::Any), missing, true),
            (None, Some(EntityTags::Any), exists, false),
            (None, list(&[other.as_str()]), exists, true),
            (None, list(&[stored.as_str()]), exists, false),
            (Some(EntityTags::Any), Some(EntityTags::Any), exists, false),
        ] {
            let preconditions = ChangePreconditions { if_match, if_none_match };
            assert_eq!(preconditions.check(current).is_ok(), holds, "{preconditions:?}");
        }
    }
}
