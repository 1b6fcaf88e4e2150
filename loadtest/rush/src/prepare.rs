//! What a scenario finds when it begins: queues, concerts, coupons, and people who stand in line or inside. None of it is measured.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::task::LocalSet;
use tokio::time::sleep;

use crate::Failure;
use crate::connection::Connection;
use crate::scenario::{PRICE, People};
use crate::stack::Target;

/// Connections by which people get in line.
const DOORS: usize = 64;
/// The answer to a join above a limit, and when it is asked again.
const TOO_MANY: u16 = 429;
const AGAIN: Duration = Duration::from_millis(100);
/// Seats of the largest hall that Usher takes.
pub(crate) const MOST_SEATS: usize = 100_000;

async fn must_put(target: &Target, path: &str, body: &Value) -> Result<(), Failure> {
    let mut admin = Connection::open(target.admin).await?;
    let headers = [("authorization", target.admin_authorization.as_str())];
    match admin.send("PUT", path, &headers, &body.to_string()).await? {
        200 => Ok(()),
        status => Err(format!("PUT {path}: {status} {}", String::from_utf8_lossy(admin.body())).into()),
    }
}

/// A queue in which everybody waits.
pub(crate) async fn paused_queue(target: &Target, queue: &str) -> Result<(), Failure> {
    must_put(target, &format!("/admin/queues/{queue}"), &json!({ "mode": "paused" })).await
}

/// A queue that lets so many in each second, and so many be inside at once.
pub(crate) async fn moving_queue(
    target: &Target,
    queue: &str,
    admit: u64,
    max_active: u64,
) -> Result<(), Failure> {
    let settings = json!({ "promote_per_interval": admit, "interval_ms": 1_000, "max_active": max_active });
    must_put(target, &format!("/admin/queues/{queue}"), &settings).await
}

/// A queue that lets everybody in at once.
async fn open_queue(target: &Target, queue: &str) -> Result<(), Failure> {
    let settings = json!({
        "promote_per_interval": 1_000_000, "interval_ms": 1_000, "max_active": 10_000_000, "active_seconds": 86_400,
    });
    must_put(target, &format!("/admin/queues/{queue}"), &settings).await
}

/// A queue that lets everybody in, and a concert of its name with one hall of so many seats; gives the schedule's name.
pub(crate) async fn hall(target: &Target, queue: &str, seats: usize) -> Result<String, Failure> {
    open_queue(target, queue).await?;
    concert(target, queue, seats).await
}

/// A concert of the queue's name with one hall of so many seats; gives the schedule's name.
pub(crate) async fn concert(target: &Target, queue: &str, seats: usize) -> Result<String, Failure> {
    let schedule = format!("{queue}-1");
    let sections = json!([{ "name": "All", "from": 1, "to": seats, "price": PRICE }]);
    let schedules = json!([{ "id": schedule, "starts_at": "2037-01-01T00:00:00Z", "sections": sections }]);
    let concert = json!({ "title": "Rush", "hold_seconds": 3_600, "schedules": schedules });
    must_put(target, &format!("/admin/concerts/{queue}"), &concert).await?;
    Ok(schedule)
}

/// A coupon that is open.
pub(crate) async fn coupon(target: &Target, coupon: &str, quota: u64) -> Result<(), Failure> {
    let body = json!({
        "title": "Rush", "total_quantity": quota, "discount_amount": 100, "min_available_amount": 0,
        "issue_starts_at": "2020-01-01T00:00:00Z", "issue_ends_at": "2037-01-01T00:00:00Z",
    });
    must_put(target, &format!("/admin/coupons/{coupon}"), &body).await
}

/// Lets `count` new people join, and gives their queue tokens.
pub(crate) async fn joined(target: &Target, queue: &str, count: usize) -> Result<Vec<String>, Failure> {
    let path = format!("/v1/queues/{queue}/tokens");
    posted(target.public, &path, count, 201, |door| door.field("token").map(str::to_owned)).await
}

/// Lets `count` new people ask for a coupon.
pub(crate) async fn issued(target: &Target, coupon: &str, count: usize) -> Result<(), Failure> {
    let path = format!("/v1/coupons/{coupon}/issues");
    posted(target.public, &path, count, 201, |_| Some(String::new())).await.map(drop)
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
                let user = people.next();
                let status = loop {
                    match door.send("POST", &path, &[("usher-user", &user)], "").await? {
                        TOO_MANY => sleep(AGAIN).await,
                        status => break status,
                    }
                };
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
