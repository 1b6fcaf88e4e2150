//! The listeners: connections, limits, callers and what each listener serves.

mod browser_headers;
mod challenge;
mod connections;
mod identity;
mod listeners;
mod queue_tokens;
mod rate_limits;

use usher::config::args::ServeArgs;

use crate::support::{Api, Instance, Stores};

async fn api_with(stores: &Stores, change: impl FnOnce(&mut ServeArgs)) -> (Instance, Api) {
    let mut args = stores.args();
    change(&mut args);
    let instance = Instance::start_with(&args).await;
    let api = Api::new(vec![[instance.public.clone(), instance.admin.clone()]]);
    (instance, api)
}
