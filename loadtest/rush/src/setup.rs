//! Creates what a scenario needs before it is measured: queues, concerts, coupons, and users who
//! wait or are active.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::task::LocalSet;
use tokio::time::sleep;

use crate::BoxError;
use crate::connection::HttpConnection;
use crate::scenario::{FreshUsers, SEAT_PRICE};
use crate::usher_process::ServiceAddresses;

const SETUP_CONNECTIONS: usize = 64;
const RATE_LIMITED: u16 = 429;
const RATE_LIMIT_PAUSE: Duration = Duration::from_millis(100);
/// The largest seat map that Usher accepts.
pub(crate) const MAX_SEATS: usize = 100_000;

async fn put(service: &ServiceAddresses, path: &str, body: &Value) -> Result<(), BoxError> {
    let mut admin = HttpConnection::open(service.admin).await?;
    let headers = [("authorization", service.admin_authorization.as_str())];
    match admin.send("PUT", path, &headers, &body.to_string()).await? {
        200 => Ok(()),
        status => {
            Err(format!("PUT {path}: {status} {}", String::from_utf8_lossy(admin.body())).into())
        }
    }
}

pub(crate) async fn paused_queue(service: &ServiceAddresses, queue: &str) -> Result<(), BoxError> {
    put(service, &format!("/admin/queues/{queue}"), &json!({ "mode": "paused" })).await
}

/// A queue that admits `per_second` users a second, up to `max_active` at once.
pub(crate) async fn running_queue(
    service: &ServiceAddresses,
    queue: &str,
    per_second: u64,
    max_active: u64,
) -> Result<(), BoxError> {
    let settings = json!({
        "promote_per_interval": per_second, "interval_ms": 1_000, "max_active": max_active,
    });
    put(service, &format!("/admin/queues/{queue}"), &settings).await
}

/// A queue that admits every user at once, and a concert. Returns the schedule's id.
pub(crate) async fn open_concert(
    service: &ServiceAddresses,
    queue: &str,
    seats: usize,
) -> Result<String, BoxError> {
    let settings = json!({
        "promote_per_interval": 1_000_000, "interval_ms": 1_000,
        "max_active": 10_000_000, "active_seconds": 86_400,
    });
    put(service, &format!("/admin/queues/{queue}"), &settings).await?;
    concert(service, queue, seats).await
}

/// A concert with the id of its queue and one schedule. Returns the schedule's id.
pub(crate) async fn concert(
    service: &ServiceAddresses,
    queue: &str,
    seats: usize,
) -> Result<String, BoxError> {
    let id = format!("{queue}-1");
    let sections = json!([{ "name": "All", "from": 1, "to": seats, "price": SEAT_PRICE }]);
    let schedule = json!({ "id": id, "starts_at": "2037-01-01T00:00:00Z", "sections": sections });
    let concert = json!({ "title": "Rush", "hold_seconds": 3_600, "schedules": [schedule] });
    put(service, &format!("/admin/concerts/{queue}"), &concert).await?;
    Ok(id)
}

/// A coupon whose issue period has begun.
pub(crate) async fn coupon(
    service: &ServiceAddresses,
    coupon: &str,
    quota: u64,
) -> Result<(), BoxError> {
    let body = json!({
        "title": "Rush", "total_quantity": quota, "discount_amount": 100,
        "min_available_amount": 0,
        "issue_starts_at": "2020-01-01T00:00:00Z", "issue_ends_at": "2037-01-01T00:00:00Z",
    });
    put(service, &format!("/admin/coupons/{coupon}"), &body).await
}

/// Lets `count` new users join, and returns their queue tokens.
pub(crate) async fn join_users(
    service: &ServiceAddresses,
    queue: &str,
    count: usize,
) -> Result<Vec<String>, BoxError> {
    let path = format!("/v1/queues/{queue}/tokens");
    post_as_new_users(service, &path, count, |response| response.field("token").map(str::to_owned))
        .await
}

/// Issues the coupon to `count` new users.
pub(crate) async fn issue_coupons(
    service: &ServiceAddresses,
    coupon: &str,
    count: usize,
) -> Result<(), BoxError> {
    let path = format!("/v1/coupons/{coupon}/issues");
    post_as_new_users(service, &path, count, |_| Some(String::new())).await.map(drop)
}

/// Sends one POST per new user, all of which must return 201, and reads a value from each response.
async fn post_as_new_users(
    service: &ServiceAddresses,
    path: &str,
    count: usize,
    read: impl Fn(&HttpConnection) -> Option<String> + Copy + 'static,
) -> Result<Vec<String>, BoxError> {
    let (users, path) = (Rc::new(FreshUsers::new()), Rc::new(path.to_owned()));
    let results = Rc::new(RefCell::new((Vec::with_capacity(count), 0_usize)));
    let local = LocalSet::new();
    let mut tasks = Vec::new();
    for _ in 0..SETUP_CONNECTIONS.min(count) {
        let mut connection = HttpConnection::open(service.public).await?;
        let (users, path, results) = (users.clone(), path.clone(), results.clone());
        tasks.push(local.spawn_local(async move {
            loop {
                if results.borrow().1 >= count {
                    return Ok(());
                }
                results.borrow_mut().1 += 1;
                let user = users.next();
                let status = loop {
                    match connection.send("POST", &path, &[("usher-user", &user)], "").await? {
                        RATE_LIMITED => sleep(RATE_LIMIT_PAUSE).await,
                        status => break status,
                    }
                };
                match read(&connection) {
                    Some(value) if status == 201 => results.borrow_mut().0.push(value),
                    _ => return Err(std::io::Error::other(format!("POST {path}: {status}"))),
                }
            }
        }));
    }
    local.await;
    for task in tasks {
        task.await??;
    }
    Ok(std::mem::take(&mut results.borrow_mut().0))
}
