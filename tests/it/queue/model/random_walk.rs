//! One run: a queue with random settings, and its users.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use chrono::{TimeDelta, Utc};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use usher::definition::ChangePreconditions;
use usher::http::identity::QueueVisitor;
use usher::http::merge_patch::DefinitionChange;
use usher::ids::{QueueId, UserId};
use usher::queue::{
    AdmissionState, Claims, Error, LocalizedText, QueueMode, QueueOrder, QueueService,
    QueueSettings, Ticket, VisitKind,
};

use crate::support::TestStores;

const USERS: u128 = 24;
/// Steps of a run before the loss of Redis, and after it.
const STEPS_PER_HALF: usize = 50;
/// Clients are never asked to poll sooner than this, so nothing is guaranteed between responses
/// that are closer together.
const MIN_POLL_INTERVAL: Duration = Duration::from_millis(900);
/// Steps within which every waiting user is admitted once the queue is open and slots turn over. At
/// worst, all users pass one slot in turn, after a restore window of two seconds.
const MAX_ADMISSION_STEPS: usize = 600;
const ADMISSION_STEP: Duration = Duration::from_millis(50);
/// Longer than a part of a run in which a user may not poll, so that only users whom the run
/// silences are taken for gone.
const ABANDON_AFTER_SECONDS: u32 = 3_600;

/// The widest limits of any settings of a run. The guarantees are checked against these.
#[derive(Debug, Clone, Copy)]
pub(super) struct PromisedBounds {
    pub(super) per_interval: u64,
    pub(super) interval_ms: i64,
    pub(super) max_active: u64,
}

struct ReportedTicket {
    at: Instant,
    score: u64,
    position: u64,
}

/// What a run did so far, for the report of a failure.
pub(super) type StepLog = Arc<Mutex<Vec<String>>>;

pub(super) struct RandomWalk {
    pub(super) seed: u64,
    pub(super) id: QueueId,
    pub(super) bounds: PromisedBounds,
    random: StdRng,
    queues: Vec<Arc<QueueService>>,
    settings: QueueSettings,
    tokens: BTreeMap<u128, Claims>,
    /// Tickets that users received while waiting.
    reported: HashMap<u128, Vec<ReportedTicket>>,
    /// Users who join now come after all scores up to this one.
    behind: u64,
    /// The scores of users who waited when they were last heard.
    waiting: BTreeMap<u128, u64>,
    /// Scores of places that their users gave up. An instance may not know that yet.
    given_up: HashSet<u64>,
    /// Users who waited and may have lost the place because they were silent.
    silenced: HashSet<u128>,
    /// Scores of users who waited, did not leave and wait no more: they must have been admitted.
    pub(super) admitted: Vec<u64>,
    stores: Arc<TestStores>,
    steps: StepLog,
}

fn user(number: u128) -> UserId {
    uuid::Uuid::from_u128(number).into()
}

impl RandomWalk {
    pub(super) async fn new(
        seed: u64,
        stores: Arc<TestStores>,
        queues: Vec<Arc<QueueService>>,
        steps: StepLog,
    ) -> Self {
        let mut random = StdRng::seed_from_u64(seed);
        let settings = QueueSettings {
            promote_per_interval: random.random_range(1..5),
            interval_ms: random.random_range(100..250),
            max_active: random.random_range(1..8),
            active_seconds: 1,
            claim_seconds: 1,
            max_waiting: random.random_bool(0.2).then(|| random.random_range(1..20)),
            restore_seconds: random.random_range(0..3),
            ..QueueSettings::default()
        };
        let bounds = PromisedBounds {
            per_interval: settings.promote_per_interval.into(),
            interval_ms: settings.interval_ms.into(),
            max_active: settings.max_active.into(),
        };
        let id: QueueId = format!("run-{seed}").parse().unwrap();
        let mut walk = Self {
            seed,
            id,
            bounds,
            random,
            queues,
            settings,
            tokens: BTreeMap::new(),
            reported: HashMap::new(),
            behind: 0,
            waiting: BTreeMap::new(),
            given_up: HashSet::new(),
            silenced: HashSet::new(),
            admitted: Vec::new(),
            stores,
            steps,
        };
        walk.put().await;
        walk
    }

    fn note(&self, step: String) {
        self.steps.lock().unwrap().push(step);
    }

    fn any_queue(&mut self) -> Arc<QueueService> {
        self.queues[self.random.random_range(0..self.queues.len())].clone()
    }

    /// Joins, polls, leaves and changed settings, on all instances.
    pub(super) async fn walk(&mut self) {
        for _ in 0..STEPS_PER_HALF {
            let user = self.random.random_range(1..=USERS);
            match self.random.random_range(0..100) {
                0..42 => self.join(user).await,
                42..76 => drop(self.poll(user).await),
                76..91 => self.leave(user).await,
                91..93 => self.silence(user).await,
                93..97 => self.change_limits().await,
                _ => self.change_opening().await,
            }
            // Users pause about as long as the promoters, so that promotions fall between their
            // steps.
            let pause = self.random.random_range(0..45);
            tokio::time::sleep(Duration::from_millis(pause)).await;
        }
    }

    async fn join(&mut self, number: u128) {
        let queue = self.any_queue();
        let visitor = QueueVisitor { name: user(number).into(), is_guest: false };
        let (place, fresh) = match queue.join(&self.id, &visitor).await {
            Ok(joined) => joined,
            Err(error @ (Error::Full | Error::Closed)) => {
                return self.note(format!("join {number}: {error}"));
            }
            Err(error) => panic!("join {number}: {error}"),
        };
        let score = place.claims.score;
        self.note(format!("join {number}: {score} {:?}", place.admission));
        if fresh {
            assert!(
                score > self.behind,
                "user {number} joined at {score}, ahead of users up to {} who waited at a change",
                self.behind
            );
        } else {
            let known = self.tokens.get(&number).map(|claims| claims.score);
            assert_eq!(known, Some(score), "user {number} has two places");
        }
        if fresh {
            self.no_longer_waits(number);
        }
        // A user who joins a draw again has the same score.
        self.given_up.remove(&score);
        self.tokens.insert(number, place.claims.clone());
        self.hear(number, &place);
    }

    async fn poll(&mut self, number: u128) -> Option<AdmissionState> {
        let claims = self.tokens.get(&number)?.clone();
        let queue = self.any_queue();
        let place = match queue.poll(&claims).await {
            Ok(place) => place,
            Err(error) => panic!("poll {number}: {error}"),
        };
        self.note(format!("poll {number}: {:?}", place.admission));
        self.hear(number, &place);
        Some(place.admission)
    }

    async fn leave(&mut self, number: u128) {
        let queue = self.any_queue();
        let Some(claims) = self.tokens.get(&number) else { return };
        self.given_up.insert(claims.score);
        match queue.leave(claims).await {
            Ok(()) | Err(Error::TokenExpired) => {}
            Err(error) => panic!("leave {number}: {error}"),
        }
        self.reported.remove(&number);
        self.waiting.remove(&number);
        self.silenced.remove(&number);
        self.note(format!("leave {number}"));
    }

    /// A waiting user is silent until the place may be taken.
    async fn silence(&mut self, number: u128) {
        if self.settings.abandon_after_seconds.is_none() || !self.waiting.contains_key(&number) {
            return;
        }
        self.note(format!("silence {number}"));
        self.silenced.insert(number);
        let partition = self.stores.partition_of(self.id.as_str());
        let key = self.stores.key(partition, &format!("q:{}:heard", self.id));
        // The ids of these users are small numbers, so their bytes are text.
        let user = user(number);
        let user = std::str::from_utf8(user.as_bytes()).unwrap();
        self.stores.redis().await.ask(&["ZADD", &key, "XX", "1", user]).await;
    }

    /// A user who waited has neither left nor been silent, so the place was admitted.
    fn no_longer_waits(&mut self, number: u128) {
        let score = self.waiting.remove(&number);
        if !self.silenced.remove(&number) {
            self.admitted.extend(score);
        }
    }

    async fn put(&mut self) {
        let queue = self.any_queue();
        self.note(format!("put {:?}", self.settings));
        let change = DefinitionChange::Replace(self.settings.clone());
        queue.change(&self.id, change, &ChangePreconditions::default()).await.unwrap();
    }

    /// Changes everything except what concerns the opening.
    async fn change_limits(&mut self) {
        let random = &mut self.random;
        let seconds = random.random_range(1..3);
        let settings = &mut self.settings;
        match random.random_range(0..6) {
            0 => settings.promote_per_interval = random.random_range(1..5),
            1 => settings.max_active = random.random_range(1..8),
            2 => settings.interval_ms = random.random_range(100..250),
            3 => {
                settings.max_waiting = random.random_bool(0.3).then(|| random.random_range(1..20));
            }
            4 => {
                let abandons = settings.abandon_after_seconds.is_none();
                settings.abandon_after_seconds = abandons.then_some(ABANDON_AFTER_SECONDS);
            }
            _ => {
                (settings.active_seconds, settings.claim_seconds) =
                    (seconds, random.random_range(1..3));
                settings.restore_seconds = random.random_range(0..3);
                let sliding = random.random_bool(0.5);
                settings.visit = if sliding { VisitKind::Sliding } else { VisitKind::Fixed };
                settings.visit_limit_seconds = sliding.then_some(60);
                settings.message = sliding.then(|| LocalizedText::Text("Please wait.".to_owned()));
            }
        }
        let (settings, bounds) = (&self.settings, &mut self.bounds);
        bounds.per_interval = bounds.per_interval.max(settings.promote_per_interval.into());
        bounds.interval_ms = bounds.interval_ms.min(settings.interval_ms.into());
        bounds.max_active = bounds.max_active.max(settings.max_active.into());
        self.put().await;
    }

    /// Opens, pauses or closes the queue, or plans another opening.
    async fn change_opening(&mut self) {
        let before = self.settings.clone();
        let draws = self.random.random_bool(0.5);
        let soon = TimeDelta::milliseconds(self.random.random_range(50..700));
        let (mut mode, mut opens_at, mut closes_at) = (QueueMode::Open, None, None);
        match self.random.random_range(0..10) {
            0..3 => {}
            3 => mode = QueueMode::Paused,
            4 => mode = QueueMode::Closed,
            5 => mode = QueueMode::Prequeue,
            6 => closes_at = Some(Utc::now() + soon),
            // A pause or its end, which changes nothing else.
            7 => {
                let paused = before.mode == QueueMode::Paused;
                mode = if paused { QueueMode::Open } else { QueueMode::Paused };
                (opens_at, closes_at) = (before.opens_at, before.closes_at);
            }
            _ => opens_at = Some(Utc::now() + soon),
        }
        let may_draw = opens_at.is_some() || mode == QueueMode::Prequeue;
        let order = if may_draw && draws { QueueOrder::Lottery } else { QueueOrder::Fifo };
        let order =
            if opens_at.is_some() && opens_at == before.opens_at { before.order } else { order };
        let may_go_on = match opens_at {
            Some(opens_at) => opens_at > Utc::now(),
            None => before.mode == QueueMode::Prequeue && mode == QueueMode::Prequeue,
        };
        let is_closed = |mode| mode == QueueMode::Closed;
        // The places of a draw that goes on are in no order of arrival.
        let goes_on = may_go_on
            && opens_at == before.opens_at
            && order == before.order
            && is_closed(mode) == is_closed(before.mode);
        self.settings =
            QueueSettings { mode, opens_at, closes_at, order, prequeue_starts_at: None, ..before };
        if let Some(opens_at) = opens_at.filter(|_| draws) {
            self.settings.prequeue_starts_at = Some(opens_at - TimeDelta::hours(1));
        }
        self.put().await;
        if !goes_on {
            self.raise_barrier();
            // Another draw can make the markers of later segments coarser.
            self.reported.clear();
        }
    }

    fn is_before_draw(&self) -> bool {
        let settings = &self.settings;
        let is_early = match settings.opens_at {
            Some(opens_at) => Utc::now() < opens_at,
            None => settings.mode == QueueMode::Prequeue,
        };
        settings.order == QueueOrder::Lottery && is_early
    }

    fn raise_barrier(&mut self) {
        let highest = self.tokens.values().map(|claims| claims.score).max();
        self.behind = self.behind.max(highest.unwrap_or_default());
    }

    /// After a loss of Redis: every user shows the token, and the order of positions begins anew.
    pub(super) async fn come_back(&mut self) {
        self.note("Redis was lost".to_owned());
        self.reported.clear();
        self.waiting.clear();
        self.silenced.clear();
        for number in self.tokens.keys().copied().collect::<Vec<_>>() {
            self.poll(number).await;
        }
        self.reported.clear();
    }

    /// The queue is used again, with a draw: users come, leave, and come back before the opening.
    pub(super) async fn use_again(&mut self) {
        let opens_at = Utc::now() + TimeDelta::milliseconds(600);
        self.settings = QueueSettings {
            mode: QueueMode::Open,
            order: QueueOrder::Lottery,
            opens_at: Some(opens_at),
            closes_at: None,
            prequeue_starts_at: None,
            ..self.settings.clone()
        };
        self.put().await;
        self.raise_barrier();
        for _ in 0..USERS {
            let user = self.random.random_range(1..=USERS);
            self.join(user).await;
            if self.random.random_bool(0.3) {
                self.leave(user).await;
            }
        }
        while Utc::now() < opens_at {
            tokio::time::sleep(ADMISSION_STEP).await;
        }
    }

    /// Opens the queue. Every user who waits is admitted within a bounded number of steps: those
    /// who are admitted leave, or let their slots lapse.
    pub(super) async fn admit_everyone(&mut self) {
        self.settings = QueueSettings {
            mode: QueueMode::Open,
            order: QueueOrder::Fifo,
            opens_at: None,
            closes_at: None,
            prequeue_starts_at: None,
            active_seconds: 1,
            claim_seconds: 1,
            ..self.settings.clone()
        };
        self.put().await;
        self.raise_barrier();
        let mut pending: Vec<u128> = self.tokens.keys().copied().collect();
        for _ in 0..MAX_ADMISSION_STEPS {
            for number in std::mem::take(&mut pending) {
                match self.poll(number).await {
                    Some(AdmissionState::Waiting { .. }) => pending.push(number),
                    Some(AdmissionState::Active { .. }) if self.random.random_bool(0.8) => {
                        self.leave(number).await;
                    }
                    // The slot lapses.
                    _ => {}
                }
            }
            if pending.is_empty() {
                return;
            }
            tokio::time::sleep(ADMISSION_STEP).await;
        }
        panic!("after {MAX_ADMISSION_STEPS} steps these still wait: {pending:?}");
    }

    /// Compares a ticket with the user's earlier ones, and the queue with its limits.
    fn hear(&mut self, number: u128, place: &Ticket) {
        let bounds = self.bounds;
        assert!(
            place.queue_state.active <= bounds.max_active,
            "{:?} above {bounds:?}",
            place.queue_state
        );
        let score = place.claims.score;
        match place.admission {
            AdmissionState::Waiting { .. } if self.given_up.contains(&score) => {}
            AdmissionState::Waiting { .. } => drop(self.waiting.insert(number, score)),
            _ => self.no_longer_waits(number),
        }
        let AdmissionState::Waiting { position: Some(position) } = place.admission else { return };
        let is_undrawn =
            score > self.behind && (score >> 40).is_multiple_of(2) && self.is_before_draw();
        assert!(!is_undrawn, "user {number} has position {position} before the draw");
        let reported = self.reported.entry(number).or_default();
        reported.retain(|reported| reported.score == score);
        for before in reported.iter().filter(|reported| reported.at.elapsed() >= MIN_POLL_INTERVAL)
        {
            assert!(
                position <= before.position,
                "user {number} had position {}, then {position}",
                before.position
            );
        }
        reported.push(ReportedTicket { at: Instant::now(), score, position });
    }
}
