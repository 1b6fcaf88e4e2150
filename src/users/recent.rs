//! The users that this instance has recorded, in bounded memory.

use std::collections::HashMap;
use std::sync::Arc;

use crate::ids::UserId;

/// At least this many users are remembered, and at most twice as many: about 30 MB.
const MIN_REMEMBERED_USERS: usize = 100_000;

/// The string of a user, and the epoch of their partition in which it was recorded.
pub(super) struct RecordedText {
    pub(super) epoch: u64,
    pub(super) text: Arc<str>,
}

/// A user who is not recorded while [`MIN_REMEMBERED_USERS`] others are is forgotten.
#[derive(Default)]
pub(super) struct RecentUsers {
    newer: HashMap<UserId, RecordedText>,
    older: HashMap<UserId, RecordedText>,
}

impl RecentUsers {
    pub(super) fn get(&self, user: UserId) -> Option<&RecordedText> {
        self.newer.get(&user).or_else(|| self.older.get(&user))
    }

    pub(super) fn insert(&mut self, user: UserId, recorded: RecordedText) {
        if self.newer.len() >= MIN_REMEMBERED_USERS {
            self.older = std::mem::take(&mut self.newer);
        }
        self.newer.insert(user, recorded);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_bounded() {
        let mut recent = RecentUsers::default();
        let user = |n: usize| uuid::Uuid::from_u128(n as u128).into();
        for n in 0..=2 * MIN_REMEMBERED_USERS {
            recent.insert(user(n), RecordedText { epoch: 1, text: "a".into() });
        }
        assert!(recent.newer.len() + recent.older.len() <= 2 * MIN_REMEMBERED_USERS);
        assert!(recent.get(user(0)).is_none());
        assert!(recent.get(user(2 * MIN_REMEMBERED_USERS)).is_some());
    }
}
