//! Several instances: what one is told the others know within a second, and one after the other is replaced under load without a request that fails.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::{Value, json};
use tokio::time::{interval, sleep};

use crate::support::world::fast_queue;
use crate::support::{NIGHT, Process, SHOW, Stores, World, eventually, new_key, new_user};

/// How often the balancer looks at an instance, and how long it lets it think.
const LOOK: Duration = Duration::from_millis(50);
const THINK: Duration = Duration::from_millis(700);

/// One place behind the balancer.
#[derive(Default)]
struct Place {
    address: Mutex<String>,
    fit: AtomicBool,
}

/// Sends each request to one instance that says it is ready, once.
struct Balancer {
    places: Vec<Place>,
    next: AtomicUsize,
    http: reqwest::Client,
    answered: AtomicUsize,
    failed: Mutex<Vec<String>>,
}

impl Balancer {
    /// Looks at one place until it is told to stop, each time over a connection of its own.
    async fn look_at(&self, at: usize, stop: &AtomicBool) {
        let place = &self.places[at];
        while !stop.load(Ordering::Relaxed) {
            let address = place.address.lock().unwrap().clone();
            let asked =
                reqwest::Client::new().get(format!("{address}/readyz")).timeout(THINK).send().await;
            // Somebody may have moved in meanwhile.
            if *place.address.lock().unwrap() == address {
                place
                    .fit
                    .store(asked.is_ok_and(|answer| answer.status() == 200), Ordering::Relaxed);
            }
            sleep(LOOK).await;
        }
    }

    /// The next one that is fit.
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

    /// One request, whatever comes of it.
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
async fn three_instances_are_replaced_one_by_one_and_no_request_fails() {
    let stores = Stores::new().await;
    let mut processes = Vec::new();
    for _ in 0..3 {
        processes.push(Process::start(&stores).await);
    }
    let api = processes[0].api();
    api.put(&format!("/admin/queues/{SHOW}"), &fast_queue()).await.expect(200);
    let waiting = json!({"promote_per_interval": 1, "interval_ms": 3_600_000, "max_active": 1});
    api.put("/admin/queues/slow", &waiting).await.expect(200);
    for process in &processes {
        let api = process.api();
        for path in ["/v1/queues/slow", "/v1/queues/show"] {
            eventually(path, || async { (api.get(path).send().await.status == 200).then_some(()) })
                .await;
        }
    }
    let (user, _inside) = (new_user(), api.guest("slow").await);
    let waits = api.guest("slow").await;

    let balancer = Arc::new(Balancer {
        places: (0..3).map(|_| Place::default()).collect(),
        next: AtomicUsize::new(0),
        // As patient as a loaded machine needs.
        http: reqwest::Client::builder().timeout(Duration::from_secs(60)).build().unwrap(),
        answered: AtomicUsize::new(0),
        failed: Mutex::default(),
    });
    for (place, process) in balancer.places.iter().zip(&processes) {
        process.public.clone_into(&mut place.address.lock().unwrap());
    }
    let (stop, looked, began) = (AtomicBool::new(false), AtomicBool::new(false), Instant::now());
    let crowd = async {
        let mut ticks = interval(Duration::from_millis(2));
        let (mut asked, mut nth) = (tokio::task::JoinSet::new(), 0_u32);
        while !stop.load(Ordering::Relaxed) {
            ticks.tick().await;
            // A machine that does not come after is not asked for more.
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
            assert_eq!(process.ended().await.code(), Some(0), "{}", process.log());
            *process = Process::start(&stores).await;
            process.public.clone_into(&mut balancer.places[at].address.lock().unwrap());
            eventually("it is given requests", || async {
                balancer.places[at].fit.load(Ordering::Relaxed).then_some(())
            })
            .await;
        }
        stop.store(true, Ordering::Relaxed);
    };
    let all = async {
        tokio::join!(crowd, replacing);
        looked.store(true, Ordering::Relaxed);
    };
    tokio::join!(all, looks);
    let failed = balancer.failed.lock().unwrap().clone();
    let answered = balancer.answered.load(Ordering::Relaxed);
    assert!(failed.is_empty(), "{} of {answered} failed:\n{}", failed.len(), failed.join("\n"));
    let rate = answered as f64 / began.elapsed().as_secs_f64();
    eprintln!(
        "{answered} requests answered, {rate:.0} a second, none failed, while three instances were replaced"
    );
    stores.audit().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_one_instance_is_told_the_others_know() {
    let world = World::start(3).await;
    world.show(4, 1_000).await;
    let mut coupon = crate::coupons::payments::coupon(300, 1_000);
    world.api.put("/admin/coupons/off", &coupon).await.expect(200);
    world.everywhere("/v1/coupons/off", |_| true).await;
    let tell = world.api.only(0);

    // Settings of a line, the catalogue, a coupon, and who may sign passes.
    let mut settings = fast_queue();
    settings["max_active"] = json!(7);
    tell.put("/admin/queues/show", &settings).await.expect(200);
    world.everywhere("/v1/queues/show", |body| body["max_active"] == 7).await;
    let mut show = crate::support::world::show(4, 1_000);
    show["title"] = json!("The other show");
    tell.put("/admin/concerts/show", &show).await.expect(200);
    world.everywhere("/v1/concerts/show", |body| body["title"] == "The other show").await;
    coupon["total_quantity"] = json!(77);
    tell.put("/admin/coupons/off", &coupon).await.expect(200);
    world.everywhere("/v1/coupons/off", |body| body["total_quantity"] == 77).await;
    let keys = |body: &Value| body["keys"].as_array().map_or(0, Vec::len);
    let before = keys(&tell.get("/.well-known/jwks.json").send().await.expect(200));
    usher::app::rotate_keys(&usher::config::MigrateSettings {
        mysql: usher::config::MysqlSettings { url: world.stores.mysql_url.clone().into() },
        partitions: usher::partition::PartitionCount::new(crate::support::servers::PARTITIONS)
            .unwrap(),
    })
    .await
    .unwrap();
    world.everywhere("/.well-known/jwks.json", |body| keys(body) == before + 1).await;

    // What is said of a line by those who did not see it grow, and of a hall by those who did not sell.
    let closed = json!({"promote_per_interval": 1, "interval_ms": 3_600_000, "max_active": 1});
    world.queue("slow", closed).await;
    for _ in 0..4 {
        tell.guest("slow").await;
    }
    world.everywhere("/v1/queues/slow", |body| body["waiting"] == 3 && body["active"] == 1).await;
    let guest = tell.active_guest(SHOW).await;
    tell.held(&guest.token, NIGHT, &[2]).await;
    for at in 0..3 {
        let seats = world.api.only(at).seats(&guest.token, NIGHT).await;
        assert_eq!(seats.iter().filter(|status| *status == "held").count(), 1, "{seats:?}");
    }
}

/// It stands still in the middle of a payment, and everything it was about goes on without it: the payment falls due and is turned back, its holder gives the
/// seat up, somebody else buys it. Then it goes on where it stood.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_instance_that_stands_still_past_every_deadline_does_no_harm() {
    let stores = Stores::new().await;
    let still = Process::start_failing(&stores, "payment/confirm.before=1*return(stop)").await;
    let other = Process::start(&stores).await;
    still.api().put(&format!("/admin/queues/{SHOW}"), &fast_queue()).await.expect(200);
    still
        .api()
        .put(&format!("/admin/concerts/{SHOW}"), &crate::support::world::show(9, 1_000))
        .await
        .expect(200);
    for api in [still.api(), other.api()] {
        eventually("the show is known", || async {
            (api.get("/v1/concerts/show").send().await.status == 200).then_some(())
        })
        .await;
    }
    let (api, elsewhere) = (still.api(), other.api());
    let late = api.active_guest(SHOW).await;
    api.charge(&late.user, 1_000).await;
    let reservation = api.held(&late.token, NIGHT, &[1]).await;
    let paying = {
        let (token, reservation) = (late.token.clone(), reservation.clone());
        tokio::spawn(async move { api.payment(&token, &reservation, &new_key()).try_send().await })
    };
    still.reached("payment/confirm.before").await;
    still.frozen().await;

    // As if its ten seconds were over.
    let due = stores.key(stores.partition_of(SHOW), &format!("q:{SHOW}:due"));
    let overdue = "for _, id in ipairs(redis.call('ZRANGE', KEYS[1], 0, -1)) do redis.call('ZADD', KEYS[1], 0, id) end return 1";
    eventually("the payment is turned back by the other instance", || async {
        stores.redis().await.ask(&["EVAL", overdue, "1", &due]).await;
        (elsewhere.balance(&late.user).await == 1_000).then_some(())
    })
    .await;
    eventually("the seat is given up", || async {
        let path = format!("/v1/reservations/{reservation}");
        (elsewhere.delete(&path).user(&late.user).send().await.status == 204).then_some(())
    })
    .await;
    let buyer = elsewhere.active_guest(SHOW).await;
    elsewhere.charge(&buyer.user, 1_000).await;
    let bought = elsewhere.held(&buyer.token, NIGHT, &[1]).await;
    elsewhere.pay(&buyer.token, &bought, &new_key()).await.expect(201);

    still.thaw();
    if let Ok(told) = paying.await.unwrap() {
        assert_ne!(told.status, 201, "{told:?}");
    }
    let facts = stores.audit().await;
    assert_eq!((facts.payments_that_are("confirmed"), facts.sold.len()), (1, 1));
    assert_eq!(other.api().balance(&late.user).await, 1_000);
}
