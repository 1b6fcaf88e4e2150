//! Several instances: a change on one reaches the others within a second, and a rolling restart
//! under load fails no request.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::{Value, json};
use tokio::time::{interval, sleep};

use crate::support::world::fast_queue_settings;
use crate::support::{
    CONCERT, SCHEDULE, TestStores, TestWorld, UsherProcess, eventually, new_key, new_user,
};

/// Interval and timeout of the load balancer's health checks.
const PROBE_INTERVAL: Duration = Duration::from_millis(50);
const PROBE_TIMEOUT: Duration = Duration::from_millis(700);

/// One backend of the load balancer.
#[derive(Default)]
struct BackendSlot {
    address: Mutex<String>,
    fit: AtomicBool,
}

/// Sends each request once, to an instance that is ready.
struct LoadBalancer {
    places: Vec<BackendSlot>,
    next: AtomicUsize,
    http: reqwest::Client,
    answered: AtomicUsize,
    failed: Mutex<Vec<String>>,
}

impl LoadBalancer {
    /// Checks one backend until it is stopped, each time over a new connection.
    async fn look_at(&self, at: usize, stop: &AtomicBool) {
        let place = &self.places[at];
        while !stop.load(Ordering::Relaxed) {
            let address = place.address.lock().unwrap().clone();
            let asked = reqwest::Client::new()
                .get(format!("{address}/readyz"))
                .timeout(PROBE_TIMEOUT)
                .send()
                .await;
            // Another instance may have started on the address.
            if *place.address.lock().unwrap() == address {
                place
                    .fit
                    .store(asked.is_ok_and(|answer| answer.status() == 200), Ordering::Relaxed);
            }
            sleep(PROBE_INTERVAL).await;
        }
    }

    /// The next ready backend.
    async fn turn(&self) -> String {
        loop {
            for _ in 0..self.places.len() {
                let place =
                    &self.places[self.next.fetch_add(1, Ordering::Relaxed) % self.places.len()];
                if place.fit.load(Ordering::Relaxed) {
                    return place.address.lock().unwrap().clone();
                }
            }
            sleep(Duration::from_millis(5)).await;
        }
    }

    /// Sends one request and counts the outcome.
    async fn ask(&self, method: Method, path: &str, headers: &[(&str, &str)], body: Option<Value>) {
        let address = self.turn().await;
        let mut request = self.http.request(method.clone(), format!("{address}{path}"));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if let Some(body) = &body {
            request = request.json(body);
        }
        match request.send().await {
            Ok(answer) if answer.status().is_success() => {
                self.answered.fetch_add(1, Ordering::Relaxed);
            }
            Ok(answer) => {
                let status = answer.status();
                let said = answer.text().await.unwrap_or_default();
                self.failed
                    .lock()
                    .unwrap()
                    .push(format!("{method} {path} at {address}: {status} {said}"));
            }
            Err(error) => {
                self.failed
                    .lock()
                    .unwrap()
                    .push(format!("{method} {path} at {address}: {error:?}"));
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rolling_restart_of_three_instances_fails_no_request() {
    let stores = TestStores::new().await;
    let mut processes = Vec::new();
    for _ in 0..3 {
        processes.push(UsherProcess::start(&stores).await);
    }
    let api = processes[0].api();
    api.put(&format!("/admin/queues/{CONCERT}"), &fast_queue_settings()).await.expect(200);
    let waiting = json!({"promote_per_interval": 1, "interval_ms": 3_600_000, "max_active": 1});
    api.put("/admin/queues/slow", &waiting).await.expect(200);
    for process in &processes {
        let api = process.api();
        for path in ["/v1/queues/slow", "/v1/queues/show"] {
            eventually(path, || async { (api.get(path).send().await.status == 200).then_some(()) })
                .await;
        }
    }
    let (user, _inside) = (new_user(), api.join_new_user("slow").await);
    let waits = api.join_new_user("slow").await;

    let balancer = Arc::new(LoadBalancer {
        places: (0..3).map(|_| BackendSlot::default()).collect(),
        next: AtomicUsize::new(0),
        // Timeouts for a loaded machine.
        http: reqwest::Client::builder().timeout(Duration::from_secs(60)).build().unwrap(),
        answered: AtomicUsize::new(0),
        failed: Mutex::default(),
    });
    for (place, process) in balancer.places.iter().zip(&processes) {
        process.public.clone_into(&mut place.address.lock().unwrap());
    }
    let (stop, looked, began) = (AtomicBool::new(false), AtomicBool::new(false), Instant::now());
    let users = async {
        let mut ticks = interval(Duration::from_millis(2));
        let (mut asked, mut nth) = (tokio::task::JoinSet::new(), 0_u32);
        while !stop.load(Ordering::Relaxed) {
            ticks.tick().await;
            // A slow machine gets no further load.
            while asked.len() > 200 {
                asked.join_next().await.unwrap().unwrap();
            }
            while let Some(done) = asked.try_join_next() {
                done.unwrap();
            }
            nth += 1;
            let (balancer, user, token) = (balancer.clone(), user.clone(), waits.token.clone());
            asked.spawn(async move {
                match nth % 4 {
                    0 => {
                        let (user, key) = (new_user(), new_key());
                        let who =
                            [("usher-user", user.as_str()), ("idempotency-key", key.as_str())];
                        let body = json!({"amount": 1});
                        balancer.ask(Method::POST, "/v1/wallet/charges", &who, Some(body)).await;
                    }
                    1 => {
                        let user = new_user();
                        let who = [("usher-user", user.as_str())];
                        balancer.ask(Method::POST, "/v1/queues/show/tokens", &who, None).await;
                    }
                    2 => {
                        let who = [("queue-token", token.as_str())];
                        balancer.ask(Method::GET, "/v1/queues/slow/tokens/me", &who, None).await;
                    }
                    _ => {
                        balancer
                            .ask(Method::GET, "/v1/wallet", &[("usher-user", user.as_str())], None)
                            .await
                    }
                }
            });
        }
        while let Some(done) = asked.join_next().await {
            done.unwrap();
        }
    };
    let looks = futures::future::join_all((0..3).map(|at| balancer.look_at(at, &looked)));
    let replacing = async {
        for (at, process) in processes.iter_mut().enumerate() {
            let before = balancer.answered.load(Ordering::Relaxed);
            eventually("there is load", || async {
                (balancer.answered.load(Ordering::Relaxed) > before + 200).then_some(())
            })
            .await;
            process.terminate();
            assert_eq!(process.wait_for_exit().await.code(), Some(0), "{}", process.log());
            *process = UsherProcess::start(&stores).await;
            process.public.clone_into(&mut balancer.places[at].address.lock().unwrap());
            eventually("the new instance receives requests", || async {
                balancer.places[at].fit.load(Ordering::Relaxed).then_some(())
            })
            .await;
        }
        stop.store(true, Ordering::Relaxed);
    };
    let all = async {
        tokio::join!(users, replacing);
        looked.store(true, Ordering::Relaxed);
    };
    tokio::join!(all, looks);
    let failed = balancer.failed.lock().unwrap().clone();
    let answered = balancer.answered.load(Ordering::Relaxed);
    assert!(failed.is_empty(), "{} of {answered} failed:\n{}", failed.len(), failed.join("\n"));
    let rate = answered as f64 / began.elapsed().as_secs_f64();
    eprintln!(
        "{answered} requests answered, {rate:.0} a second, none failed, while three instances \
             were replaced"
    );
    stores.audit().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn change_on_one_instance_reaches_the_others() {
    let world = TestWorld::start(3).await;
    world.put_show(4, 1_000).await;
    let mut coupon = crate::coupons::payments::coupon(300, 1_000);
    world.api.put("/admin/coupons/off", &coupon).await.expect(200);
    world.wait_on_every_instance("/v1/coupons/off", |_| true).await;
    let first_instance = world.api.for_instance(0);

    // Settings of a queue, the catalogue, a coupon, and the keys that sign admission passes.
    let mut settings = fast_queue_settings();
    settings["max_active"] = json!(7);
    first_instance.put("/admin/queues/show", &settings).await.expect(200);
    world.wait_on_every_instance("/v1/queues/show", |body| body["max_active"] == 7).await;
    let mut show = crate::support::world::concert_definition(4, 1_000);
    show["title"] = json!("The other show");
    first_instance.put("/admin/concerts/show", &show).await.expect(200);
    world
        .wait_on_every_instance("/v1/concerts/show", |body| body["title"] == "The other show")
        .await;
    coupon["total_quantity"] = json!(77);
    first_instance.put("/admin/coupons/off", &coupon).await.expect(200);
    world.wait_on_every_instance("/v1/coupons/off", |body| body["total_quantity"] == 77).await;
    let keys = |body: &Value| body["keys"].as_array().map_or(0, Vec::len);
    let before = keys(&first_instance.get("/.well-known/jwks.json").send().await.expect(200));
    usher::app::rotate_keys(&usher::config::MysqlSettings {
        url: world.stores.mysql_url.clone().into(),
    })
    .await
    .unwrap();
    world.wait_on_every_instance("/.well-known/jwks.json", |body| keys(body) == before + 1).await;

    // Instances that did not handle the joins report the queue, and those that did not sell report
    // the seats.
    let closed = json!({"promote_per_interval": 1, "interval_ms": 3_600_000, "max_active": 1});
    world.put_queue("slow", closed).await;
    for _ in 0..4 {
        first_instance.join_new_user("slow").await;
    }
    world
        .wait_on_every_instance("/v1/queues/slow", |body| {
            body["waiting"] == 3 && body["active"] == 1
        })
        .await;
    let guest = first_instance.active_user(CONCERT).await;
    first_instance.hold_seats(&guest.token, SCHEDULE, &[2]).await;
    for at in 0..3 {
        let seats = world.api.for_instance(at).seats(&guest.token, SCHEDULE).await;
        assert_eq!(seats.iter().filter(|status| *status == "held").count(), 1, "{seats:?}");
    }
}

/// The instance freezes during a payment and everything continues without it: the payment becomes
/// due and is voided, the user releases the seat, another user buys it. Then the instance resumes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn instance_frozen_past_every_deadline_does_no_harm() {
    let stores = TestStores::new().await;
    let still = UsherProcess::start_failing(&stores, "payment/confirm.before=1*return(stop)").await;
    let other = UsherProcess::start(&stores).await;
    still.api().put(&format!("/admin/queues/{CONCERT}"), &fast_queue_settings()).await.expect(200);
    still
        .api()
        .put(
            &format!("/admin/concerts/{CONCERT}"),
            &crate::support::world::concert_definition(9, 1_000),
        )
        .await
        .expect(200);
    for api in [still.api(), other.api()] {
        eventually("the concert is known", || async {
            (api.get("/v1/concerts/show").send().await.status == 200).then_some(())
        })
        .await;
    }
    let (api, elsewhere) = (still.api(), other.api());
    let late = api.active_user(CONCERT).await;
    api.charge(&late.user, 1_000).await;
    let reservation = api.hold_seats(&late.token, SCHEDULE, &[1]).await;
    let paying = {
        let (token, reservation) = (late.token.clone(), reservation.clone());
        tokio::spawn(async move { api.payment(&token, &reservation, &new_key()).try_send().await })
    };
    still.wait_for_failpoint("payment/confirm.before").await;
    still.wait_until_frozen().await;

    // As if ten seconds had passed.
    let due = stores.key(stores.partition_of(CONCERT), &format!("q:{CONCERT}:due"));
    let overdue = "for _, id in ipairs(redis.call('ZRANGE', KEYS[1], 0, -1)) do \
         redis.call('ZADD', KEYS[1], 0, id) end return 1";
    eventually("the other instance voids the payment", || async {
        stores.redis().await.ask(&["EVAL", overdue, "1", &due]).await;
        (elsewhere.balance(&late.user).await == 1_000).then_some(())
    })
    .await;
    eventually("the seat is released", || async {
        let path = format!("/v1/reservations/{reservation}");
        (elsewhere.delete(&path).user(&late.user).send().await.status == 204).then_some(())
    })
    .await;
    let buyer = elsewhere.active_user(CONCERT).await;
    elsewhere.charge(&buyer.user, 1_000).await;
    let bought = elsewhere.hold_seats(&buyer.token, SCHEDULE, &[1]).await;
    elsewhere.pay(&buyer.token, &bought, &new_key()).await.expect(201);

    still.thaw();
    if let Ok(reported) = paying.await.unwrap() {
        assert_ne!(reported.status, 201, "{reported:?}");
    }
    let facts = stores.audit().await;
    assert_eq!((facts.payments_that_are("confirmed"), facts.sold.len()), (1, 1));
    assert_eq!(other.api().balance(&late.user).await, 1_000);
}
