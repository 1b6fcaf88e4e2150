//! An instance in the process of the tests, on its own ports.

use tokio::task::JoinHandle;
use usher::app::{PruneSchedule, UsherApp};
use usher::config::UsherConfig;
use usher::config::args::ServeArgs;
use usher::shutdown::ShutdownSignal;
use usher::webhooks::RetrySchedule;

use super::servers::TestStores;

/// A whole instance: both listeners and all background work. Dropping it aborts everything.
pub(crate) struct TestInstance {
    /// `http://127.0.0.1:…` of the public listener.
    pub(crate) public: String,
    /// `http://127.0.0.1:…` of the admin listener.
    pub(crate) admin: String,
    shutdown: ShutdownSignal,
    task: Option<JoinHandle<()>>,
}

impl TestInstance {
    pub(crate) async fn start(stores: &TestStores) -> Self {
        Self::start_with(&stores.args()).await
    }

    pub(crate) async fn start_with(args: &ServeArgs) -> Self {
        // Boxed, because every test holds this future.
        Box::pin(Self::start_with_pruning(args, PruneSchedule::default())).await
    }

    /// As [`Self::start_with`], with another schedule for pruning ended records.
    pub(crate) async fn start_with_pruning(args: &ServeArgs, schedule: PruneSchedule) -> Self {
        Box::pin(Self::start_changed(args, |app| app.with_prune_schedule(schedule))).await
    }

    /// As [`Self::start_with`], with another schedule for deliveries to webhooks.
    pub(crate) async fn start_with_retries(args: &ServeArgs, retries: RetrySchedule) -> Self {
        Box::pin(Self::start_changed(args, |app| app.with_retry_schedule(retries))).await
    }

    async fn start_changed(args: &ServeArgs, change: impl FnOnce(UsherApp) -> UsherApp) -> Self {
        if let Ok(levels) = std::env::var("RUST_LOG") {
            // For debugging. Only the first instance of the run sets the log up.
            let _ =
                usher::telemetry::log::init(usher::telemetry::log::LogFormat::Text, Some(&levels));
        }
        let config = UsherConfig::new(args).unwrap();
        let shutdown = ShutdownSignal::new();
        // Boxed, so that the futures of the tests stay small.
        let app = Box::pin(UsherApp::build(config, shutdown.clone())).await.unwrap();
        let app = change(app);
        let any = "127.0.0.1:0".parse().unwrap();
        let public = usher::app::listen(any).await.unwrap();
        let admin = usher::app::listen(any).await.unwrap();
        let url = |listener: &tokio::net::TcpListener| {
            format!("http://{}", listener.local_addr().unwrap())
        };
        Self {
            public: url(&public),
            admin: url(&admin),
            shutdown,
            task: Some(tokio::spawn(app.serve(public, admin))),
        }
    }

    /// Drains and stops: requests finish, payments end, the outbox is written.
    pub(crate) async fn stop(mut self) {
        self.shutdown.quiet_token().cancel();
        self.shutdown.drain_token().cancel();
        if let Some(task) = self.task.take() {
            tokio::time::timeout(super::EVENT_TIMEOUT, task)
                .await
                .expect("the instance stops")
                .unwrap();
        }
    }
}

impl Drop for TestInstance {
    fn drop(&mut self) {
        self.shutdown.stop();
    }
}
