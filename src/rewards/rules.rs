//! Pure functions of rewards: which definitions are valid, and which facts an operator can set.

use super::reward::{Reward, UserFactChanges, UserFacts};
use crate::definition::DefinitionViolation;
use crate::money::{self, Money};
use crate::time::{MUST_BE_STORABLE, is_storable};

/// Facts that the service maintains: the total of the user's payments that were not refunded, and
/// their number.
pub(super) const SERVICE_FACTS: [&str; 2] = ["paid_total", "reservations_confirmed"];
const MAX_CONDITIONS_PER_REWARD: usize = 20;
pub(super) const MAX_FACTS_PER_USER: usize = 100;

/// Checks the fields of a reward against their ranges and against each other.
pub(super) fn violations(reward: &Reward) -> Vec<DefinitionViolation> {
    let mut violations = Vec::new();
    let mut check = |valid: bool, field: &str, message: &str| {
        if !valid {
            violations.push(DefinitionViolation::new(field, message));
        }
    };
    let title = &reward.title;
    let is_text =
        (1..=255).contains(&title.chars().count()) && !title.chars().any(char::is_control);
    check(is_text, "title", "must have 1 to 255 characters");
    let (starts, ends) = (reward.starts_at, reward.ends_at);
    check(is_storable(starts), "starts_at", MUST_BE_STORABLE);
    check(is_storable(ends), "ends_at", MUST_BE_STORABLE);
    check(
        starts.timestamp_millis() < ends.timestamp_millis(),
        "ends_at",
        "must be after starts_at",
    );
    check(reward.conditions.len() <= MAX_CONDITIONS_PER_REWARD, "conditions", "must be at most 20");
    for (at, condition) in reward.conditions.iter().enumerate() {
        check(is_name(&condition.fact), &format!("conditions[{at}].fact"), NOT_A_NAME);
        check(is_exact(condition.value), &format!("conditions[{at}].value"), NOT_EXACT);
    }
    check(reward.gift.points() > Money::ZERO, "reward.amount", "must be at least 1");
    violations
}

/// Checks the facts that an operator sets for a user.
pub(super) fn fact_violations(facts: &UserFacts) -> Vec<DefinitionViolation> {
    named_fact_violations(facts.iter().map(|(name, value)| (name.as_str(), *value)))
}

/// Checks a change of facts. A fact that is removed needs a name that it could have.
pub(super) fn fact_change_violations(changes: &UserFactChanges) -> Vec<DefinitionViolation> {
    let values = changes.iter().map(|(name, value)| (name.as_str(), value.unwrap_or(0)));
    named_fact_violations(values)
}

pub(super) fn too_many_facts() -> DefinitionViolation {
    DefinitionViolation::new("", "must be at most 100 facts")
}

fn named_fact_violations<'a>(
    facts: impl ExactSizeIterator<Item = (&'a str, i64)>,
) -> Vec<DefinitionViolation> {
    let mut violations = Vec::new();
    if facts.len() > MAX_FACTS_PER_USER {
        violations.push(too_many_facts());
    }
    for (name, value) in facts.take(MAX_FACTS_PER_USER) {
        let message = if !is_name(name) {
            NOT_A_NAME
        } else if SERVICE_FACTS.contains(&name) {
            "is maintained by the service"
        } else if !is_exact(value) {
            NOT_EXACT
        } else {
            continue;
        };
        violations.push(DefinitionViolation::new(name, message));
    }
    violations
}

const NOT_A_NAME: &str = "must match [A-Za-z0-9_-]{1,64}";
const NOT_EXACT: &str = "must be from -9007199254740991 to 9007199254740991";

fn is_name(text: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || b == b'-';
    (1..=64).contains(&text.len()) && text.bytes().all(allowed)
}

/// Whether a double, the number type of Lua and of JSON clients, represents the number exactly.
fn is_exact(number: i64) -> bool {
    (-money::MAX..=money::MAX).contains(&number)
}

#[cfg(test)]
mod tests {
    use chrono::DateTime;

    use super::super::reward::{ComparisonOperator, RewardCondition, RewardKind};
    use super::*;

    fn reward() -> Reward {
        Reward {
            code: "welcome".parse().unwrap(),
            version: 1,
            title: "Welcome".into(),
            starts_at: DateTime::from_timestamp_millis(1_000).unwrap(),
            ends_at: DateTime::from_timestamp_millis(2_000).unwrap(),
            active: true,
            conditions: vec![condition("login_days", 7)],
            gift: points(500),
            revocable: false,
        }
    }

    fn condition(fact: &str, value: i64) -> RewardCondition {
        RewardCondition { fact: fact.into(), op: ComparisonOperator::AtLeast, value }
    }

    fn points(amount: i64) -> RewardKind {
        RewardKind::Points { amount: Money::new(amount).unwrap() }
    }

    fn fields(reward: &Reward) -> Vec<String> {
        violations(reward).into_iter().map(|violation| violation.field).collect()
    }

    #[test]
    fn values_out_of_range_are_violations() {
        let good = reward();
        assert!(violations(&good).is_empty());
        assert!(violations(&Reward { conditions: vec![], ..good.clone() }).is_empty());
        for title in ["", "a\nb", &"x".repeat(256)] {
            assert_eq!(fields(&Reward { title: title.into(), ..good.clone() }), ["title"]);
        }
        assert_eq!(fields(&Reward { ends_at: good.starts_at, ..good.clone() }), ["ends_at"]);
        let early = DateTime::from_timestamp_millis(-1).unwrap();
        assert_eq!(fields(&Reward { starts_at: early, ..good.clone() }), ["starts_at"]);
        assert_eq!(fields(&Reward { gift: points(0), ..good.clone() }), ["reward.amount"]);
        let many = vec![condition("a", 1); 21];
        assert_eq!(fields(&Reward { conditions: many, ..good.clone() }), ["conditions"]);
        let bad = vec![
            condition("a b", 1),
            condition("a", money::MAX + 1),
            condition("", -money::MAX - 1),
        ];
        assert_eq!(
            fields(&Reward { conditions: bad, ..good }),
            [
                "conditions[0].fact",
                "conditions[1].value",
                "conditions[2].fact",
                "conditions[2].value"
            ]
        );
    }

    #[test]
    fn operators_cannot_set_facts_of_the_service() {
        let facts = |pairs: &[(&str, i64)]| {
            let facts: UserFacts =
                pairs.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect();
            fact_violations(&facts).into_iter().map(|violation| violation.field).collect::<Vec<_>>()
        };
        assert!(facts(&[("login_days", 7), ("debt", -5), ("most", money::MAX)]).is_empty());
        assert_eq!(facts(&SERVICE_FACTS.map(|name| (name, 1))), SERVICE_FACTS);
        assert_eq!(facts(&[("a:b", 1), ("b", i64::MIN), ("c", i64::MAX)]), ["a:b", "b", "c"]);
        let names: Vec<String> = (0..101).map(|n| format!("f{n}")).collect();
        assert_eq!(facts(&names.iter().map(|name| (name.as_str(), 1)).collect::<Vec<_>>()), [""]);
    }

    #[test]
    fn comparison_operators_have_the_same_spelling_everywhere() {
        for op in [
            ComparisonOperator::AtLeast,
            ComparisonOperator::AtMost,
            ComparisonOperator::Equal,
            ComparisonOperator::NotEqual,
        ] {
            assert_eq!(serde_json::to_value(op).unwrap(), op.as_str());
        }
    }
}
