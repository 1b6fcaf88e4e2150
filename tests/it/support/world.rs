//! Stores, instances on them, and one concert to sell.

use reqwest::Method;
use serde_json::{Value, json};
use usher::config::args::ServeArgs;

use super::{Api, Instance, Stores, eventually};

/// The concert of most tests, and its queue.
pub(crate) const SHOW: &str = "show";
/// Its one date.
pub(crate) const NIGHT: &str = "night";

/// What a test plays in.
pub(crate) struct World {
    pub(crate) stores: Stores,
    pub(crate) instances: Vec<Instance>,
    pub(crate) api: Api,
}

impl World {
    /// So many instances on stores of their own.
    pub(crate) async fn start(instances: usize) -> Self {
        Self::on(Stores::new().await, instances).await
    }

    /// So many instances on given stores.
    pub(crate) async fn on(stores: Stores, count: usize) -> Self {
        let mut instances = Vec::new();
        for _ in 0..count {
            instances.push(Instance::start(&stores).await);
        }
        Self::with(stores, instances)
    }

    /// So many instances on given stores, with other settings than usual.
    pub(crate) async fn with_args(stores: Stores, all: &[ServeArgs]) -> Self {
        let mut instances = Vec::new();
        for args in all {
            instances.push(Instance::start_with(args).await);
        }
        Self::with(stores, instances)
    }

    /// Instances that run already.
    pub(crate) fn with(stores: Stores, instances: Vec<Instance>) -> Self {
        let addresses = instances.iter().map(|it| [it.public.clone(), it.admin.clone()]).collect();
        Self { stores, api: Api::new(addresses), instances }
    }

    /// Sets a queue up, and waits until every instance knows it.
    pub(crate) async fn queue(&self, queue: &str, settings: Value) {
        self.api.put(&format!("/admin/queues/{queue}"), &settings).await.expect(200);
        self.everywhere(&format!("/v1/queues/{queue}"), |body| {
            settings["max_active"].is_null() || body["max_active"] == settings["max_active"]
        })
        .await;
    }

    /// Sets a concert up, and waits until every instance knows it.
    pub(crate) async fn concert(&self, concert: &str, definition: Value) {
        self.api.put(&format!("/admin/concerts/{concert}"), &definition).await.expect(200);
        let known = |body: &Value| body["title"] == definition["title"];
        self.everywhere(&format!("/v1/concerts/{concert}"), known).await;
        let queue = definition["queue_id"].as_str().unwrap_or(concert);
        self.everywhere(&format!("/v1/queues/{queue}"), |_| true).await;
    }

    /// [`SHOW`] with a fast queue and one [`NIGHT`] of so many seats at one price.
    pub(crate) async fn show(&self, seats: u32, price: i64) {
        self.queue(SHOW, fast_queue()).await;
        self.concert(SHOW, show(seats, price)).await;
    }

    /// Waits until every instance answers a path with 200 and a body that satisfies.
    pub(crate) async fn everywhere(&self, path: &str, satisfies: impl Fn(&Value) -> bool) {
        for at in 0..self.api.instances() {
            let api = self.api.only(at);
            eventually(path, || async {
                let answer = api.call(Method::GET, path).send().await;
                (answer.status == 200 && satisfies(&answer.body)).then_some(())
            })
            .await;
        }
    }

    /// Drains and stops all instances; gives the stores back.
    pub(crate) async fn stop(self) -> Stores {
        for instance in self.instances {
            instance.stop().await;
        }
        self.stores
    }
}

/// A queue that lets everybody in at once.
pub(crate) fn fast_queue() -> Value {
    json!({"promote_per_interval": 10_000, "interval_ms": 1_000, "max_active": 10_000})
}

/// [`SHOW`] with one [`NIGHT`].
pub(crate) fn show(seats: u32, price: i64) -> Value {
    json!({"title": "The show", "schedules": [night(seats, price)]})
}

/// A [`NIGHT`] of one section.
pub(crate) fn night(seats: u32, price: i64) -> Value {
    let sections = json!([{"name": "A", "from": 1, "to": seats, "price": price}]);
    json!({"id": NIGHT, "starts_at": "2100-01-01T19:00:00.000Z", "sections": sections})
}
