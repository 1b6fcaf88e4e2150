//! What one client of the closed loop does. A unit is one request, except a purchase (five).

use std::cell::Cell;
use std::io;

use uuid::{Builder, Uuid};

use crate::connection::HttpConnection;

/// Price of every seat, and what a buyer charges.
pub(crate) const SEAT_PRICE: u32 = 1_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum UnitResult {
    Success,
    UnexpectedStatus(u16),
    /// Nothing was sent because all prepared items are used.
    Exhausted,
}

/// Generates user ids that the service has not seen before.
pub(crate) struct FreshUsers {
    seed: u128,
    next: Cell<u64>,
}

impl FreshUsers {
    pub(crate) fn new() -> Self {
        Self { seed: Uuid::new_v4().as_u128(), next: Cell::new(0) }
    }

    pub(crate) fn next(&self) -> String {
        user_id(self.seed, self.next.replace(self.next.get() + 1))
    }
}

/// The user of a number: equal seeds and numbers give equal users.
pub(crate) fn user_id(seed: u128, number: u64) -> String {
    // An odd multiplier spreads the numbers over all bits and so the users over all partitions.
    let mixed = (seed ^ u128::from(number)).wrapping_mul(0x2545_f491_4f6c_dd1d_9e37_79b9_7f4a_7c15);
    Builder::from_random_bytes(mixed.to_be_bytes()).into_uuid().to_string()
}

/// Items prepared before a run.
pub(crate) struct PreparedItems<T> {
    items: Vec<T>,
    next: Cell<usize>,
}

impl<T> PreparedItems<T> {
    pub(crate) fn new(items: Vec<T>) -> Self {
        Self { items, next: Cell::new(0) }
    }

    /// The next item with its index; none after the last.
    fn take(&self) -> Option<(usize, &T)> {
        let index = self.next.replace(self.next.get() + 1);
        self.items.get(index).map(|item| (index, item))
    }

    /// The next item; the first again after the last.
    fn cycle(&self) -> Option<&T> {
        let index = self.next.replace(self.next.get() + 1);
        self.items.get(index % self.items.len().max(1))
    }
}

pub(crate) enum LoadScenario {
    Get(String),
    /// Waiting users poll their tickets.
    Poll {
        path: String,
        tokens: PreparedItems<String>,
    },
    Join {
        path: String,
        users: FreshUsers,
    },
    /// Active users hold one seat each: the index of the token plus one is the seat number.
    Hold {
        schedule: String,
        tokens: PreparedItems<String>,
    },
    Charge {
        users: FreshUsers,
    },
    /// New users join, poll, hold, charge and pay.
    Purchase {
        queue: String,
        schedule: String,
        seats: PreparedItems<()>,
        users: FreshUsers,
    },
    /// New users request a coupon. `status` is the expected answer.
    Issue {
        path: String,
        users: FreshUsers,
        status: u16,
    },
}

impl LoadScenario {
    pub(crate) async fn run_unit(&self, connection: &mut HttpConnection) -> io::Result<UnitResult> {
        let (expected, status) = match self {
            Self::Get(path) => (200, connection.get(path, &[]).await?),
            Self::Poll { path, tokens } => {
                let Some(token) = tokens.cycle() else { return Ok(UnitResult::Exhausted) };
                (200, connection.get(path, &[("queue-token", token)]).await?)
            }
            Self::Join { path, users } => {
                (201, connection.send("POST", path, &[("usher-user", &users.next())], "").await?)
            }
            Self::Hold { schedule, tokens } => {
                let Some((index, token)) = tokens.take() else { return Ok(UnitResult::Exhausted) };
                (201, hold(connection, schedule, index + 1, token).await?)
            }
            Self::Charge { users } => (201, charge(connection, &users.next()).await?),
            Self::Purchase { queue, schedule, seats, users } => {
                let Some((index, ())) = seats.take() else { return Ok(UnitResult::Exhausted) };
                return purchase(connection, queue, schedule, index + 1, &users.next()).await;
            }
            Self::Issue { path, users, status } => (
                *status,
                connection.send("POST", path, &[("usher-user", &users.next())], "").await?,
            ),
        };
        Ok(check_status(expected, status))
    }
}

fn check_status(expected: u16, status: u16) -> UnitResult {
    if expected == status { UnitResult::Success } else { UnitResult::UnexpectedStatus(status) }
}

async fn hold(
    connection: &mut HttpConnection,
    schedule: &str,
    seat: usize,
    token: &str,
) -> io::Result<u16> {
    let body = format!(r#"{{"schedule_id":"{schedule}","seats":[{seat}]}}"#);
    connection.send("POST", "/v1/reservations", &[("queue-token", token)], &body).await
}

async fn charge(connection: &mut HttpConnection, user: &str) -> io::Result<u16> {
    // Each user charges once, so the user id can serve as the idempotency key.
    let headers = [("usher-user", user), ("idempotency-key", user)];
    let body = format!(r#"{{"amount":{SEAT_PRICE}}}"#);
    connection.send("POST", "/v1/wallet/charges", &headers, &body).await
}

async fn purchase(
    connection: &mut HttpConnection,
    queue: &str,
    schedule: &str,
    seat: usize,
    user: &str,
) -> io::Result<UnitResult> {
    let path = format!("/v1/queues/{queue}/tokens");
    let status = connection.send("POST", &path, &[("usher-user", user)], "").await?;
    let (201, Some(token)) = (status, connection.field("token")) else {
        return Ok(UnitResult::UnexpectedStatus(status));
    };
    let token = token.to_owned();
    let status = connection.get(&format!("{path}/me"), &[("queue-token", &token)]).await?;
    if status != 200 {
        return Ok(UnitResult::UnexpectedStatus(status));
    }
    let status = hold(connection, schedule, seat, &token).await?;
    let (201, Some(reservation)) = (status, connection.field("id")) else {
        return Ok(UnitResult::UnexpectedStatus(status));
    };
    let body = format!(r#"{{"reservation_id":"{reservation}"}}"#);
    let status = charge(connection, user).await?;
    if status != 201 {
        return Ok(UnitResult::UnexpectedStatus(status));
    }
    let key = format!("pay-{user}");
    let headers = [("queue-token", token.as_str()), ("idempotency-key", &key)];
    Ok(check_status(201, connection.send("POST", "/v1/payments", &headers, &body).await?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn generated_users_are_unique_and_valid() {
        let (one, other) = (FreshUsers::new(), FreshUsers::new());
        let users: HashSet<_> = (0..1_000).flat_map(|_| [one.next(), other.next()]).collect();
        assert_eq!(users.len(), 2_000);
        assert!(users.iter().all(|user| user.parse::<usher::ids::UserId>().is_ok()));
    }

    #[test]
    fn prepared_items_end_or_repeat() {
        let items = PreparedItems::new(vec!['a', 'b']);
        assert_eq!(items.take(), Some((0, &'a')));
        assert_eq!(items.take(), Some((1, &'b')));
        assert_eq!(items.take(), None);
        assert_eq!(items.cycle(), Some(&'b'));
        assert_eq!(PreparedItems::<()>::new(Vec::new()).cycle(), None);
    }
}
