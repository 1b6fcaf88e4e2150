//! What a scenario finds when it begins: queues, concerts, coupons, and people who stand in line or inside. None of it is measured.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;

use serde_json::{Value, json};
use tokio::task::LocalSet;

use crate::Failure;
use crate::connection::Connection;
use crate::scenario::{PRICE, People};
use crate::stack::Stack;

/// Connections by which people get in line.
const DOORS: usize = 64;
/// Seats of the largest hall that Usher takes.
pub(crate) const MOST_SEATS: usize = 100_000;

/// Asks the admin listener for something and gives status and answer.
pub(crate) async fn put(stack: &Stack, path: &str, body: &Value) -> Result<(u16, String), Failure> {
    let mut admin = Connection::open(stack.admin).await?;
    let headers = [("authorization", stack.admin_authorization.as_str())];
    let status = admin.send("PUT", path, &headers, &body.to_string()).await?;
    Ok((status, String::from_utf8_lossy(admin.body()).into_owned()))
}

/// The same for what must be granted.
pub(crate) async fn must_put(stack: &Stack, path: &str, body: &Value) -> Result<(), Failure> {
    match put(stack, path, body).await? {
        (200, _) => Ok(()),
        (status, answer) => Err(format!("PUT {path}: {status} {answer}").into()),
    }
}

/// A queue in which everybody waits.
pub(crate) async fn paused_queue(stack: &Stack, queue: &str) -> Result<(), Failure> {
    must_put(stack, &format!("/admin/queues/{queue}"), &json!({ "mode": "paused" })).await
}

/// A queue that lets everybody in at once.
pub(crate) async fn open_queue(stack: &Stack, queue: &str) -> Result<(), Failure> {
    let settings = json!({
        "promote_per_interval": 1_000_000, "interval_ms": 1_000, "max_active": 10_000_000, "active_seconds": 86_400,
    });
    must_put(stack, &format!("/admin/queues/{queue}"), &settings).await
}

/// A concert of the queue's name with one hall of [`MOST_SEATS`] seats; gives the schedule's name.
pub(crate) async fn hall(stack: &Stack, queue: &str) -> Result<String, Failure> {
    open_queue(stack, queue).await?;
    let schedule = format!("{queue}-1");
    let sections = json!([{ "name": "All", "from": 1, "to": MOST_SEATS, "price": PRICE }]);
    let schedules = json!([{ "id": schedule, "starts_at": "2037-01-01T00:00:00Z", "sections": sections }]);
    let concert = json!({ "title": "Rush", "hold_seconds": 3_600, "schedules": schedules });
    must_put(stack, &format!("/admin/concerts/{queue}"), &concert).await?;
    Ok(schedule)
}

/// A coupon, or the reason why there is none.
pub(crate) async fn coupon(stack: &Stack, coupon: &str, quota: u64) -> Result<Result<(), String>, Failure> {
    let body = json!({
        "title": "Rush", "total_quantity": quota, "discount_amount": 100, "min_available_amount": 0,
        "issue_starts_at": "2020-01-01T00:00:00Z", "issue_ends_at": "2037-01-01T00:00:00Z",
    });
    let path = format!("/admin/coupons/{coupon}");
    Ok(match put(stack, &path, &body).await? {
        (200, _) => Ok(()),
        (404, _) => Err(format!("{path} is not there in this build (404)")),
        (status, answer) => Err(format!("PUT {path}: {status} {answer}")),
    })
}

/// Lets `count` new people join, and gives their queue tokens.
pub(crate) async fn joined(stack: &Stack, queue: &str, count: usize) -> Result<Vec<String>, Failure> {
    let path = format!("/v1/queues/{queue}/tokens");
    posted(stack.public, &path, count, 201, |door| door.field("token").map(str::to_owned)).await
}

/// Lets `count` new people ask for a coupon.
pub(crate) async fn issued(stack: &Stack, coupon: &str, count: usize) -> Result<(), Failure> {
    let path = format!("/v1/coupons/{coupon}/issues");
    posted(stack.public, &path, count, 201, |_| Some(String::new())).await.map(drop)
}

async fn posted(
    address: SocketAddr,
    path: &str,
    count: usize,
    wanted: u16,
    read: impl Fn(&Connection) -> Option<String> + 'static,
) -> Result<Vec<String>, Failure> {
    let (people, path, read) = (Rc::new(People::new()), Rc::new(path.to_owned()), Rc::new(read));
    let got = Rc::new(RefCell::new((Vec::with_capacity(count), 0_usize)));
    let local = LocalSet::new();
    let mut doors = Vec::new();
    for _ in 0..DOORS.min(count) {
        let mut door = Connection::open(address).await?;
        let (people, path, read, got) = (people.clone(), path.clone(), read.clone(), got.clone());
        doors.push(local.spawn_local(async move {
            loop {
                if got.borrow().1 >= count {
                    return Ok(());
                }
                got.borrow_mut().1 += 1;
                let status = door.send("POST", &path, &[("usher-user", &people.next())], "").await?;
                match read(&door) {
                    Some(value) if status == wanted => got.borrow_mut().0.push(value),
                    _ => return Err(std::io::Error::other(format!("POST {path}: {status}"))),
                }
            }
        }));
    }
    local.await;
    for door in doors {
        door.await??;
    }
    let got = std::mem::take(&mut got.borrow_mut().0);
    Ok(got)
}
