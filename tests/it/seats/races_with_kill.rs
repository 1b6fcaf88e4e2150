//! More users than seats on two processes that are killed with -9 and restarted, until the last
//! seat is sold.
//!
//! The seed decides which user tries which seat, releases it or sends a request twice, and after
//! how many responses which process is killed. The first seed is `USHER_TEST_SEED`.
//! `USHER_TEST_RACE_RUNS` is the number of runs (10 if unset).

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::future::join_all;
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use serde_json::json;
use tokio::sync::Notify;

use crate::support::api::{ApiRequest, TestUser};
use crate::support::world::{fast_queue_settings, schedule_definition};
use crate::support::{
    ApiClient, ApiResponse, CONCERT, SCHEDULE, TestStores, UsherProcess, new_key, new_user,
};

const USERS: u64 = 300;
const SEATS: u32 = 100;
const PRICE: i64 = 1_000;
/// A process is killed after at most this many more responses, and at least half of them.
const MAX_ANSWERS_BETWEEN_KILLS: u32 = 400;
/// Pause of a user before a retry.
const RETRY_PAUSE: Duration = Duration::from_millis(20);

/// The processes that serve now, and the counts of the users.
struct KillRace {
    api: Mutex<ApiClient>,
    answers: AtomicU32,
    lost: AtomicU32,
    left: AtomicBool,
    happened: Notify,
}

impl KillRace {
    fn api(&self) -> ApiClient {
        self.api.lock().unwrap().clone()
    }

    /// Sends one request. `None` is a lost response, or one that reports an unknown outcome.
    async fn ask(&self, call: impl Fn(&ApiClient) -> ApiRequest) -> Option<ApiResponse> {
        let answer = call(&self.api()).try_send().await.ok();
        if answer.is_none() {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
        let answer = answer.filter(|answer| ![202, 503].contains(&answer.status));
        match answer {
            Some(_) => {
                self.answers.fetch_add(1, Ordering::Relaxed);
                self.happened.notify_one();
            }
            None => tokio::time::sleep(RETRY_PAUSE).await,
        }
        answer
    }

    /// Repeats a request until there is a response.
    async fn ask_until_answered(&self, call: impl Fn(&ApiClient) -> ApiRequest) -> ApiResponse {
        loop {
            if let Some(answer) = self.ask(&call).await {
                return answer;
            }
        }
    }

    async fn join_until_active(&self) -> TestUser {
        let user = new_user();
        let join = format!("/v1/queues/{CONCERT}/tokens");
        let ticket = self.ask_until_answered(|api| api.post(&join).user(&user)).await;
        assert!([200, 201].contains(&ticket.status), "{ticket:?}");
        let token = ticket.body["token"].as_str().unwrap().to_owned();
        loop {
            let place = self
                .ask_until_answered(|api| api.get(&format!("{join}/me")).token(&token))
                .await
                .expect(200);
            if place["status"] == "active" {
                return TestUser { user, token };
            }
        }
    }

    /// The user's hold, even if the response was lost.
    async fn held_by(&self, guest: &TestUser) -> Option<String> {
        let mine = self
            .ask_until_answered(|api| api.get("/v1/reservations/mine").user(&guest.user))
            .await
            .expect(200);
        let items = mine["items"].as_array().unwrap();
        let held = items.iter().find(|it| it["status"] == "held")?;
        Some(held["id"].as_str().unwrap().to_owned())
    }

    /// Tries random seats, then the best ones. A user may have one seat only, so a hold whose
    /// response was lost shows in the next one.
    async fn hold(&self, guest: &TestUser, random: &mut SmallRng) -> Option<String> {
        for round in 0.. {
            let (path, wish) = if round < 3 {
                let seat = random.random_range(1..=SEATS);
                ("/v1/reservations", json!({"schedule_id": SCHEDULE, "seats": [seat]}))
            } else {
                ("/v1/reservations/best", json!({"schedule_id": SCHEDULE, "quantity": 1}))
            };
            let Some(answer) = self.ask(|api| api.post(path).token(&guest.token).json(&wish)).await
            else {
                continue;
            };
            match (answer.status, answer.body["code"].as_str()) {
                (201, _) => return Some(answer.body["id"].as_str().unwrap().to_owned()),
                (409, Some("seat_taken")) => {}
                (409, Some("not_enough_seats")) => return self.held_by(guest).await,
                (422, Some("seat_limit_exceeded")) => {
                    return Some(self.held_by(guest).await.expect("the hold counts"));
                }
                _ => panic!("{answer:?}"),
            }
        }
        None
    }

    /// One user, whichever process is killed meanwhile. Returns whether the user has a seat.
    async fn visit(&self, seed: u64) -> bool {
        let mut random = SmallRng::seed_from_u64(seed);
        let guest = self.join_until_active().await;
        let (charged, paid) = (new_key(), new_key());
        let money = json!({"amount": PRICE});
        self.ask_until_answered(|api| {
            api.post("/v1/wallet/charges").user(&guest.user).key(&charged).json(&money)
        })
        .await
        .expect(201);
        let mut gives_back = random.random_bool(0.2);
        loop {
            let Some(id) = self.hold(&guest, &mut random).await else { return false };
            if std::mem::take(&mut gives_back) {
                let path = format!("/v1/reservations/{id}");
                self.ask_until_answered(|api| api.delete(&path).user(&guest.user))
                    .await
                    .expect(204);
                continue;
            }
            let times = if random.random_bool(0.2) { 3 } else { 1 };
            let presses = (0..times)
                .map(|_| self.ask_until_answered(|api| api.payment(&guest.token, &id, &paid)));
            for answer in join_all(presses).await {
                assert_eq!(answer.expect(201)["status"], "confirmed");
            }
            return true;
        }
    }
}

fn api_of(processes: &[UsherProcess]) -> ApiClient {
    ApiClient::new(
        processes.iter().map(|process| [process.public.clone(), process.admin.clone()]).collect(),
    )
}

/// Kills one process or both after a number of responses and restarts it, until all users are done.
/// Returns the number of kills.
async fn kill_repeatedly(
    street: &KillRace,
    stores: &TestStores,
    mut processes: Vec<UsherProcess>,
    random: &mut SmallRng,
) -> (u32, Vec<UsherProcess>) {
    let mut kills = 0;
    loop {
        let strike = street.answers.load(Ordering::Relaxed)
            + random.random_range(MAX_ANSWERS_BETWEEN_KILLS / 2..=MAX_ANSWERS_BETWEEN_KILLS);
        while street.answers.load(Ordering::Relaxed) < strike {
            if street.left.load(Ordering::Relaxed) {
                return (kills, processes);
            }
            street.happened.notified().await;
        }
        let many = if random.random_bool(0.25) { 2 } else { 1 };
        for _ in 0..many {
            processes.remove(random.random_range(0..processes.len())).kill().await;
            kills += 1;
        }
        for _ in 0..many {
            processes.push(UsherProcess::start(stores).await);
        }
        *street.api.lock().unwrap() = api_of(&processes);
    }
}

/// One race. Returns the number of lost responses.
async fn race(seed: u64) -> u32 {
    let stores = TestStores::new().await;
    let first = UsherProcess::start(&stores).await;
    let api = api_of(std::slice::from_ref(&first));
    api.put("/admin/queues/show", &fast_queue_settings()).await.expect(200);
    let show = json!({"title": "The show", "max_seats_per_user": 1,
        "schedules": [schedule_definition(SEATS, PRICE)]});
    api.put("/admin/concerts/show", &show).await.expect(200);
    let processes = vec![first, UsherProcess::start(&stores).await];

    let street = Arc::new(KillRace {
        api: Mutex::new(api_of(&processes)),
        answers: AtomicU32::new(0),
        lost: AtomicU32::new(0),
        left: AtomicBool::new(false),
        happened: Notify::new(),
    });
    let visitors = tokio::spawn({
        let street = street.clone();
        async move {
            let visit = |n| {
                tokio::spawn({
                    let street = street.clone();
                    async move { street.visit(seed.wrapping_add(n)).await }
                })
            };
            let seated = join_all((0..USERS).map(visit)).await;
            street.left.store(true, Ordering::Relaxed);
            street.happened.notify_one();
            seated.into_iter().filter(|it| *it.as_ref().unwrap()).count()
        }
    });
    let mut random = SmallRng::seed_from_u64(seed);
    let (kills, _processes) = kill_repeatedly(&street, &stores, processes, &mut random).await;
    let (seated, lost) = (visitors.await.unwrap(), street.lost.load(Ordering::Relaxed));
    eprintln!("USHER_TEST_SEED={seed}: {kills} kills, {lost} responses lost");
    assert!(kills > 0, "no process was killed");

    let facts = stores.audit().await;
    assert_eq!((seated, facts.payments_that_are("confirmed"), facts.sold.len()), (100, 100, 100));
    let numbers: BTreeSet<_> = facts.sold.keys().map(|(_, number)| *number).collect();
    assert_eq!(numbers, (1..=SEATS).collect());
    assert_eq!(
        facts.wallets.values().sum::<i64>(),
        200 * PRICE,
        "users without a seat keep their money"
    );
    lost
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_hundred_users_race_for_a_hundred_seats_while_processes_are_killed() {
    let runs = std::env::var("USHER_TEST_RACE_RUNS").map_or(10, |text| text.parse().unwrap());
    let first = crate::support::test_seed();
    let mut lost = 0;
    for seed in first..first + runs {
        lost += race(seed).await;
    }
    assert!(lost > 0, "the kills hit nothing");
}
