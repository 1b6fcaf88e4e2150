//! The listeners: connections, limits, callers and what each listener serves.

mod browser_headers;
mod challenge;
mod connections;
mod identity;
mod listeners;
mod queue_tokens;
mod rate_limits;
mod user_ids;

use usher::config::args::ServeArgs;

use crate::support::{ApiClient, TestInstance, TestStores};

async fn api_with(
    stores: &TestStores,
    change: impl FnOnce(&mut ServeArgs),
) -> (TestInstance, ApiClient) {
    let mut args = stores.args();
    change(&mut args);
    let instance = TestInstance::start_with(&args).await;
    let api = ApiClient::new(vec![[instance.public.clone(), instance.admin.clone()]]);
    (instance, api)
}
