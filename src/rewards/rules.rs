//! Pure decisions about rewards: which are sound, and which facts an operator may set.

use super::reward::{Reward, UserFacts};
use crate::money::{self, Money};
use crate::time::{MUST_BE_STORABLE, is_storable};

/// Facts that Usher keeps by itself: what all payments of the user took that were not given back, and how many they are.
pub(super) const KEPT: [&str; 2] = ["paid_total", "reservations_confirmed"];
/// Conditions of one reward, at most.
const MAX_CONDITIONS: usize = 20;
/// Facts of one user, at most.
const MAX_FACTS: usize = 100;

/// One field that is not sound, and why.
pub type Flaw = (String, String);

/// Checks a reward's fields against their ranges and against each other.
pub(super) fn flaws(reward: &Reward) -> Vec<Flaw> {
    let mut flaws = Vec::new();
    let mut check = |sound: bool, field: &str, message: &str| {
        if !sound {
            flaws.push((field.to_owned(), message.to_owned()));
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
    check(reward.conditions.len() <= MAX_CONDITIONS, "conditions", "must be at most 20");
    for (at, condition) in reward.conditions.iter().enumerate() {
        check(is_name(&condition.fact), &format!("conditions[{at}].fact"), NOT_A_NAME);
        check(is_exact(condition.value), &format!("conditions[{at}].value"), NOT_EXACT);
    }
    check(reward.gift.points() > Money::ZERO, "reward.amount", "must be at least 1");
    flaws
}

/// Checks facts that an operator sets.
pub(super) fn fact_flaws(facts: &UserFacts) -> Vec<Flaw> {
    let mut flaws = Vec::new();
    if facts.len() > MAX_FACTS {
        flaws.push((String::new(), "must be at most 100 facts".to_owned()));
    }
    for (name, value) in facts.iter().take(MAX_FACTS) {
        let message = if !is_name(name) {
            NOT_A_NAME
        } else if KEPT.contains(&name.as_str()) {
            "is kept by the service"
        } else if !is_exact(*value) {
            NOT_EXACT
        } else {
            continue;
        };
        flaws.push((name.clone(), message.to_owned()));
    }
    flaws
}

const NOT_A_NAME: &str = "must match [A-Za-z0-9_-]{1,64}";
const NOT_EXACT: &str = "must be from -9007199254740991 to 9007199254740991";

fn is_name(text: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || b == b'-';
    (1..=64).contains(&text.len()) && text.bytes().all(allowed)
}

/// Whether Lua's doubles and JSON's clients hold the number exactly.
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
        }
    }

    fn condition(fact: &str, value: i64) -> RewardCondition {
        RewardCondition { fact: fact.into(), op: ComparisonOperator::AtLeast, value }
    }

    fn points(amount: i64) -> RewardKind {
        RewardKind::Points { amount: Money::new(amount).unwrap() }
    }

    fn fields(reward: &Reward) -> Vec<String> {
        flaws(reward).into_iter().map(|(field, _)| field).collect()
    }

    #[test]
    fn every_field_has_its_range() {
        let good = reward();
        assert!(flaws(&good).is_empty());
        assert!(flaws(&Reward { conditions: vec![], ..good.clone() }).is_empty());
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
    fn kept_facts_are_not_set_by_operators() {
        let facts = |pairs: &[(&str, i64)]| {
            let facts: UserFacts =
                pairs.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect();
            fact_flaws(&facts).into_iter().map(|(field, _)| field).collect::<Vec<_>>()
        };
        assert!(facts(&[("login_days", 7), ("debt", -5), ("most", money::MAX)]).is_empty());
        assert_eq!(facts(&KEPT.map(|name| (name, 1))), KEPT);
        assert_eq!(facts(&[("a:b", 1), ("b", i64::MIN), ("c", i64::MAX)]), ["a:b", "b", "c"]);
        let names: Vec<String> = (0..101).map(|n| format!("f{n}")).collect();
        assert_eq!(facts(&names.iter().map(|name| (name.as_str(), 1)).collect::<Vec<_>>()), [""]);
    }

    #[test]
    fn operators_are_spelt_alike_everywhere() {
        for op in [
            ComparisonOperator::AtLeast,
            ComparisonOperator::AtMost,
            ComparisonOperator::Exactly,
            ComparisonOperator::Other,
        ] {
            assert_eq!(serde_json::to_value(op).unwrap(), op.as_str());
        }
    }
}
