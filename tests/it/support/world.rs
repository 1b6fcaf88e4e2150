//! Stores, instances on them, and one concert on sale.

use reqwest::Method;
use serde_json::{Value, json};
use usher::config::args::ServeArgs;

use super::{ApiClient, TestInstance, TestStores, eventually};

/// The concert of most tests, and its queue.
pub(crate) const CONCERT: &str = "show";
/// Its schedule.
pub(crate) const SCHEDULE: &str = "night";

pub(crate) struct TestWorld {
    pub(crate) stores: TestStores,
    pub(crate) instances: Vec<TestInstance>,
    pub(crate) api: ApiClient,
}

impl TestWorld {
    /// A number of instances on new stores.
    pub(crate) async fn start(instances: usize) -> Self {
        Self::on(TestStores::new().await, instances).await
    }

    /// A number of instances on given stores.
    pub(crate) async fn on(stores: TestStores, count: usize) -> Self {
        let mut instances = Vec::new();
        for _ in 0..count {
            instances.push(TestInstance::start(&stores).await);
        }
        Self::with(stores, instances)
    }

    /// Instances on given stores with given settings.
    pub(crate) async fn with_args(stores: TestStores, all: &[ServeArgs]) -> Self {
        let mut instances = Vec::new();
        for args in all {
            instances.push(TestInstance::start_with(args).await);
        }
        Self::with(stores, instances)
    }

    /// Instances that already run.
    pub(crate) fn with(stores: TestStores, instances: Vec<TestInstance>) -> Self {
        let addresses = instances.iter().map(|it| [it.public.clone(), it.admin.clone()]).collect();
        Self { stores, api: ApiClient::new(addresses), instances }
    }

    /// The instances and the stores, for a test that changes the instances.
    pub(crate) fn into_parts(self) -> (Vec<TestInstance>, TestStores) {
        (self.instances, self.stores)
    }

    /// Creates or changes a queue.
    pub(crate) async fn put_queue(&self, queue: &str, settings: Value) {
        self.api.put(&format!("/admin/queues/{queue}"), &settings).await.expect(200);
    }

    /// Creates or changes a concert.
    pub(crate) async fn put_concert(&self, concert: &str, definition: Value) {
        self.api.put(&format!("/admin/concerts/{concert}"), &definition).await.expect(200);
    }

    /// Creates [`CONCERT`] with a fast queue and one [`SCHEDULE`] with seats of one price.
    pub(crate) async fn put_show(&self, seats: u32, price: i64) {
        self.put_queue(CONCERT, fast_queue_settings()).await;
        self.put_concert(CONCERT, concert_definition(seats, price)).await;
    }

    /// Waits until every instance answers the path with 200 and a body that satisfies the
    /// condition.
    pub(crate) async fn wait_on_every_instance(
        &self,
        path: &str,
        satisfies: impl Fn(&Value) -> bool,
    ) {
        for at in 0..self.api.instances() {
            let api = self.api.for_instance(at);
            eventually(path, || async {
                let answer = api.call(Method::GET, path).send().await;
                (answer.status == 200 && satisfies(&answer.body)).then_some(())
            })
            .await;
        }
    }

    /// Drains and stops all instances, and returns the stores.
    pub(crate) async fn stop(self) -> TestStores {
        for instance in self.instances {
            instance.stop().await;
        }
        self.stores
    }
}

/// A queue that admits everyone at once.
pub(crate) fn fast_queue_settings() -> Value {
    json!({"promote_per_interval": 10_000, "interval_ms": 1_000, "max_active": 10_000})
}

/// The definition of [`CONCERT`] with one [`SCHEDULE`].
pub(crate) fn concert_definition(seats: u32, price: i64) -> Value {
    json!({"title": "The show", "schedules": [schedule_definition(seats, price)]})
}

/// The definition of [`SCHEDULE`] with one section.
pub(crate) fn schedule_definition(seats: u32, price: i64) -> Value {
    let sections = json!([{"name": "A", "from": 1, "to": seats, "price": price}]);
    json!({"id": SCHEDULE, "starts_at": "2100-01-01T19:00:00.000Z", "sections": sections})
}
