//! What a client does, unit by unit. A unit is one request, except a purchase, which is five.

use std::cell::Cell;
use std::io;

use uuid::{Builder, Uuid};

use crate::connection::Connection;

/// The price of every seat, and what a buyer charges.
pub(crate) const PRICE: u32 = 1_000;

/// What a unit came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Done {
    /// As it should.
    Well,
    /// With a status that it should not have.
    Status(u16),
    /// Nothing was done: what had been prepared is used up.
    Nothing,
}

/// Users that nobody has seen yet.
pub(crate) struct People {
    seed: u128,
    next: Cell<u64>,
}

impl People {
    /// Users unlike those of any other crowd.
    pub(crate) fn new() -> Self {
        Self { seed: Uuid::new_v4().as_u128(), next: Cell::new(0) }
    }

    /// A new user.
    pub(crate) fn next(&self) -> String {
        user(self.seed, self.next.replace(self.next.get() + 1))
    }
}

/// A user by number: the same seed and number are the same user, in every process.
pub(crate) fn user(seed: u128, n: u64) -> String {
    // An odd multiplier spreads the numbers over all bits, so that the users spread over all partitions.
    let mixed = (seed ^ u128::from(n)).wrapping_mul(0x2545_f491_4f6c_dd1d_9e37_79b9_7f4a_7c15);
    Builder::from_random_bytes(mixed.to_be_bytes()).into_uuid().to_string()
}

/// Things prepared, each used once.
pub(crate) struct Stock<T> {
    things: Vec<T>,
    next: Cell<usize>,
}

impl<T> Stock<T> {
    /// A stock of these.
    pub(crate) fn new(things: Vec<T>) -> Self {
        Self { things, next: Cell::new(0) }
    }

    fn take(&self) -> Option<(usize, &T)> {
        let at = self.next.replace(self.next.get() + 1);
        self.things.get(at).map(|thing| (at, thing))
    }

    fn any(&self) -> Option<&T> {
        let at = self.next.replace(self.next.get() + 1);
        self.things.get(at % self.things.len().max(1))
    }
}

/// One kind of unit with what it needs.
pub(crate) enum Scenario {
    /// `GET` of a path that needs nobody.
    Get(String),
    /// Waiting users who ask how long yet.
    Poll { path: String, tokens: Stock<String> },
    /// New users who get in line.
    Join { path: String, people: People },
    /// Active users who hold one seat each: the token's place in the stock is the seat's number.
    Hold { schedule: String, tokens: Stock<String> },
    /// New users who put money in.
    Charge { people: People },
    /// New users who join, poll, hold, charge and pay.
    Purchase { queue: String, schedule: String, seats: Stock<()>, people: People },
    /// New users who ask for a coupon, and the status that they should get.
    Issue { path: String, people: People, status: u16 },
}

impl Scenario {
    /// Does one unit.
    pub(crate) async fn unit(&self, on: &mut Connection) -> io::Result<Done> {
        match self {
            Self::Get(path) => on.get(path, &[]).await.map(|status| expect(200, status)),
            Self::Poll { path, tokens } => match tokens.any() {
                Some(token) => on.get(path, &[("queue-token", token)]).await.map(|s| expect(200, s)),
                None => Ok(Done::Nothing),
            },
            Self::Join { path, people } => {
                let user = people.next();
                on.send("POST", path, &[("usher-user", &user)], "").await.map(|status| expect(201, status))
            }
            Self::Hold { schedule, tokens } => match tokens.take() {
                Some((at, token)) => hold(on, schedule, at + 1, token).await.map(|s| expect(201, s)),
                None => Ok(Done::Nothing),
            },
            Self::Charge { people } => charge(on, &people.next()).await.map(|status| expect(201, status)),
            Self::Purchase { queue, schedule, seats, people } => match seats.take() {
                Some((at, ())) => purchase(on, queue, schedule, at + 1, &people.next()).await,
                None => Ok(Done::Nothing),
            },
            Self::Issue { path, people, status } => {
                let user = people.next();
                on.send("POST", path, &[("usher-user", &user)], "").await.map(|got| expect(*status, got))
            }
        }
    }
}

fn expect(wanted: u16, got: u16) -> Done {
    if wanted == got { Done::Well } else { Done::Status(got) }
}

async fn hold(on: &mut Connection, schedule: &str, seat: usize, token: &str) -> io::Result<u16> {
    let body = format!(r#"{{"schedule_id":"{schedule}","seats":[{seat}]}}"#);
    on.send("POST", "/v1/reservations", &[("queue-token", token)], &body).await
}

async fn charge(on: &mut Connection, user: &str) -> io::Result<u16> {
    // A user charges once here, so the user's name will do as the key.
    let headers = [("usher-user", user), ("idempotency-key", user)];
    on.send("POST", "/v1/wallet/charges", &headers, &format!(r#"{{"amount":{PRICE}}}"#)).await
}

async fn purchase(
    on: &mut Connection,
    queue: &str,
    schedule: &str,
    seat: usize,
    user: &str,
) -> io::Result<Done> {
    let status = on.send("POST", &format!("/v1/queues/{queue}/tokens"), &[("usher-user", user)], "").await?;
    let (201, Some(token)) = (status, on.field("token")) else { return Ok(Done::Status(status)) };
    let token = token.to_owned();
    let status = on.get(&format!("/v1/queues/{queue}/tokens/me"), &[("queue-token", &token)]).await?;
    if status != 200 {
        return Ok(Done::Status(status));
    }
    let status = hold(on, schedule, seat, &token).await?;
    let (201, Some(reservation)) = (status, on.field("id")) else { return Ok(Done::Status(status)) };
    let body = format!(r#"{{"reservation_id":"{reservation}"}}"#);
    let status = charge(on, user).await?;
    if status != 201 {
        return Ok(Done::Status(status));
    }
    let key = format!("pay-{user}");
    let headers = [("queue-token", token.as_str()), ("idempotency-key", &key)];
    on.send("POST", "/v1/payments", &headers, &body).await.map(|status| expect(201, status))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn nobody_comes_twice() {
        let (one, other) = (People::new(), People::new());
        let users: HashSet<_> = (0..1_000).flat_map(|_| [one.next(), other.next()]).collect();
        assert_eq!(users.len(), 2_000);
        assert!(users.iter().all(|user| user.parse::<usher::ids::UserId>().is_ok()));
    }

    #[test]
    fn a_stock_ends_or_goes_round() {
        let stock = Stock::new(vec!['a', 'b']);
        assert_eq!(stock.take(), Some((0, &'a')));
        assert_eq!(stock.take(), Some((1, &'b')));
        assert_eq!(stock.take(), None);
        assert_eq!(stock.any(), Some(&'b'));
        assert_eq!(Stock::<()>::new(Vec::new()).any(), None);
    }
}
