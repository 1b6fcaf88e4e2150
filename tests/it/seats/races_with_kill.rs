//! More users than seats on two processes that are killed with -9 and started again, to the last seat.
//!
//! A seed deals who tries which seat, who gives one back, who presses twice, and after how many answers which process is killed. The first seed is
//! `USHER_TEST_SEED`; `USHER_RACE_RUNS` says how many runs follow (10 if unset).

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::future::join_all;
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use serde_json::json;
use tokio::sync::Notify;

use crate::support::api::{Call, Guest};
use crate::support::world::{fast_queue, night};
use crate::support::{Answer, Api, NIGHT, Process, SHOW, Stores, new_key, new_user};

const USERS: u64 = 300;
const SEATS: u32 = 100;
const PRICE: i64 = 1_000;
/// A process is killed after so many answers more, or as few as half of them.
const ANSWERS: u32 = 400;
/// How long somebody waits who got no answer.
const PAUSE: Duration = Duration::from_millis(20);

/// The processes that serve now, and how the users fare.
struct Street {
    api: Mutex<Api>,
    answers: AtomicU32,
    lost: AtomicU32,
    left: AtomicBool,
    happened: Notify,
}

impl Street {
    fn api(&self) -> Api {
        self.api.lock().unwrap().clone()
    }

    /// Asks once. `None` stands for a lost answer, and for one that says that there is none yet.
    async fn ask(&self, call: impl Fn(&Api) -> Call) -> Option<Answer> {
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
            None => tokio::time::sleep(PAUSE).await,
        }
        answer
    }

    /// Asks until there is an answer.
    async fn must(&self, call: impl Fn(&Api) -> Call) -> Answer {
        loop {
            if let Some(answer) = self.ask(&call).await {
                return answer;
            }
        }
    }

    async fn enter(&self) -> Guest {
        let user = new_user();
        let join = format!("/v1/queues/{SHOW}/tokens");
        let ticket = self.must(|api| api.post(&join).user(&user)).await;
        assert!([200, 201].contains(&ticket.status), "{ticket:?}");
        let token = ticket.body["token"].as_str().unwrap().to_owned();
        loop {
            let place =
                self.must(|api| api.get(&format!("{join}/me")).token(&token)).await.expect(200);
            if place["status"] == "active" {
                return Guest { user, token };
            }
        }
    }

    /// What the user holds, whether or not they heard of it.
    async fn held_by(&self, guest: &Guest) -> Option<String> {
        let mine =
            self.must(|api| api.get("/v1/reservations/mine").user(&guest.user)).await.expect(200);
        let items = mine["items"].as_array().unwrap();
        let held = items.iter().find(|it| it["status"] == "held")?;
        Some(held["id"].as_str().unwrap().to_owned())
    }

    /// Tries some seats at random, then whatever is best. One seat is all that a user may have, so a hold whose answer was lost shows itself.
    async fn hold(&self, guest: &Guest, random: &mut SmallRng) -> Option<String> {
        for round in 0.. {
            let (path, wish) = if round < 3 {
                let seat = random.random_range(1..=SEATS);
                ("/v1/reservations", json!({"schedule_id": NIGHT, "seats": [seat]}))
            } else {
                ("/v1/reservations/best", json!({"schedule_id": NIGHT, "quantity": 1}))
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
                    return Some(self.held_by(guest).await.expect("what counts is held"));
                }
                _ => panic!("{answer:?}"),
            }
        }
        None
    }

    /// What one user does, whoever is killed meanwhile. Gives whether they have a seat.
    async fn visit(&self, seed: u64) -> bool {
        let mut random = SmallRng::seed_from_u64(seed);
        let guest = self.enter().await;
        let (charged, paid) = (new_key(), new_key());
        let money = json!({"amount": PRICE});
        self.must(|api| {
            api.post("/v1/wallet/charges").user(&guest.user).key(&charged).json(&money)
        })
        .await
        .expect(201);
        let mut gives_back = random.random_bool(0.2);
        loop {
            let Some(id) = self.hold(&guest, &mut random).await else { return false };
            if std::mem::take(&mut gives_back) {
                let path = format!("/v1/reservations/{id}");
                self.must(|api| api.delete(&path).user(&guest.user)).await.expect(204);
                continue;
            }
            let times = if random.random_bool(0.2) { 3 } else { 1 };
            let presses =
                (0..times).map(|_| self.must(|api| api.payment(&guest.token, &id, &paid)));
            for answer in join_all(presses).await {
                assert_eq!(answer.expect(201)["status"], "confirmed");
            }
            return true;
        }
    }
}

fn doors(processes: &[Process]) -> Api {
    Api::new(
        processes.iter().map(|process| [process.public.clone(), process.admin.clone()]).collect(),
    )
}

/// Kills one process or both after so many answers, and starts it again, until everybody has left. Gives how often.
async fn kill_now_and_then(
    street: &Street,
    stores: &Stores,
    mut processes: Vec<Process>,
    random: &mut SmallRng,
) -> (u32, Vec<Process>) {
    let mut kills = 0;
    loop {
        let strike =
            street.answers.load(Ordering::Relaxed) + random.random_range(ANSWERS / 2..=ANSWERS);
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
            processes.push(Process::start(stores).await);
        }
        *street.api.lock().unwrap() = doors(&processes);
    }
}

/// One race. Gives how many answers were lost.
async fn race(seed: u64) -> u32 {
    let stores = Stores::new().await;
    let first = Process::start(&stores).await;
    let api = doors(std::slice::from_ref(&first));
    api.put("/admin/queues/show", &fast_queue()).await.expect(200);
    let show =
        json!({"title": "The show", "max_seats_per_user": 1, "schedules": [night(SEATS, PRICE)]});
    api.put("/admin/concerts/show", &show).await.expect(200);
    let processes = vec![first, Process::start(&stores).await];

    let street = Arc::new(Street {
        api: Mutex::new(doors(&processes)),
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
    let (kills, _processes) = kill_now_and_then(&street, &stores, processes, &mut random).await;
    let (seated, lost) = (visitors.await.unwrap(), street.lost.load(Ordering::Relaxed));
    eprintln!("USHER_TEST_SEED={seed}: {kills} kills, {lost} answers lost");
    assert!(kills > 0, "nobody was killed");

    let facts = stores.audit().await;
    assert_eq!((seated, facts.payments_that_are("confirmed"), facts.sold.len()), (100, 100, 100));
    let numbers: BTreeSet<_> = facts.sold.keys().map(|(_, number)| *number).collect();
    assert_eq!(numbers, (1..=SEATS).collect());
    assert_eq!(facts.wallets.values().sum::<i64>(), 200 * PRICE, "who has no seat has the money");
    lost
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_hundred_users_race_for_a_hundred_seats_while_processes_are_killed() {
    let runs = std::env::var("USHER_RACE_RUNS").map_or(10, |text| text.parse().unwrap());
    let first = crate::support::test_seed();
    let mut lost = 0;
    for seed in first..first + runs {
        lost += race(seed).await;
    }
    assert!(lost > 0, "the kills hit nothing");
}
