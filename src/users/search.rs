//! Finds users by the beginning of their id.
//!
//! The ids that are not UUIDs are in `users`, in the order of the alphabet. UUIDs have no row
//! there. They are found in the tables that name users, in the order of their bytes, and follow all
//! other ids.

use uuid::Uuid;

use super::{UserDirectory, sql};
use crate::http::page::PageLimit;
use crate::ids::{UserId, UserName};
use crate::store_error::StoreError;

/// The digits of a UUID and their places.
const TEMPLATE: &str = "00000000-0000-0000-0000-000000000000";

impl UserDirectory {
    /// Users whose id begins with `prefix`, after the user `last`: one more than the page has, to
    /// show whether another page follows.
    ///
    /// # Errors
    /// Those of MySQL.
    pub async fn search(
        &self,
        prefix: &str,
        last: Option<&UserName>,
        limit: PageLimit,
    ) -> Result<Vec<UserName>, StoreError> {
        let wanted = limit.get() + 1;
        let is_uuid = |name: &&UserName| !name.key().is_hashed();
        let mut found = Vec::new();
        if last.filter(is_uuid).is_none() {
            let after = last.map(ToString::to_string);
            let names = sql::names(&self.mysql, prefix, after.as_deref(), wanted).await?;
            found.extend(names.into_iter().map(|(key, text)| UserName::recorded(key, Some(text))));
        }
        if found.len() < wanted
            && let Some((lowest, highest)) = uuid_range(prefix)
        {
            let after = last.filter(is_uuid).map(|last| last.key().uuid());
            let missing = wanted - found.len();
            let keys = sql::keys(&self.mysql, lowest, highest, after, missing).await?;
            found.extend(keys.into_iter().map(|key| UserName::from(UserId::from(key))));
        }
        Ok(found)
    }
}

/// The first and the last UUID that begins with a text.
fn uuid_range(prefix: &str) -> Option<(Uuid, Uuid)> {
    let prefix = prefix.to_ascii_lowercase();
    let rest = TEMPLATE.get(prefix.len()..)?;
    let first = Uuid::try_parse(&format!("{prefix}{rest}")).ok()?;
    let last = Uuid::try_parse(&format!("{prefix}{}", rest.replace('0', "f"))).ok()?;
    Some((first, last))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefix_of_a_uuid_is_a_range() {
        let range = |prefix: &str| {
            uuid_range(prefix).map(|(first, last)| (first.to_string(), last.to_string()))
        };
        let all = |text: &str| text.to_owned();
        assert_eq!(
            range("0A1b2c3d-4"),
            Some((
                all("0a1b2c3d-4000-0000-0000-000000000000"),
                all("0a1b2c3d-4fff-ffff-ffff-ffffffffffff")
            ))
        );
        assert_eq!(range("").unwrap().1, "ffffffff-ffff-ffff-ffff-ffffffffffff");
        let whole = "0a1b2c3d-4e5f-4a6b-8c7d-9e0f1a2b3c4d";
        assert_eq!(range(whole), Some((all(whole), all(whole))));
        for other in ["x", "0a1b2c3d4", "auth0|5", &format!("{whole}0"), "가"] {
            assert_eq!(range(other), None, "{other}");
        }
    }
}
