//! The composition root: builds the domain services, merges their routers, and runs the commands.
//!
//! Only this module and `cli` see the whole configuration. `usher serve` starts in [`serve`] and
//! builds an [`UsherApp`]; `dev` adds to it what only `usher dev` needs.

mod admin_log;
mod admin_users;
mod api;
mod audit;
mod background;
mod clocks;
mod csv;
mod dead_letter_routes;
mod dead_letters;
mod definition_sync;
mod demo_data;
mod dev;
mod domain_services;
mod error;
mod instance;
mod jobs;
mod maintenance;
mod openapi;
mod operator;
mod prune;
mod recover;
mod repartition;
mod serve;
mod stats;

pub use admin_log::print as print_admin_log;
pub use api::{admin_document, public_document};
pub use audit::{audit, audit_queue};
pub use dead_letters::{list as list_dead_letters, retry as retry_dead_letters};
pub use dev::dev;
pub use domain_services::check_stores;
pub use error::Error;
pub use instance::{UsherApp, listen};
pub use maintenance::{archive, migrate, rotate_keys, seed_demo};
pub use operator::{OperatorCommand, OperatorError, operate, parse_assignment};
pub use prune::PruneSchedule;
pub use recover::recover;
pub use repartition::repartition;
pub use serve::serve;
