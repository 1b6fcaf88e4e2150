//! What operators use: processes, metrics, dashboards, backups and commands.

mod acl;
mod admin_definitions;
mod admin_log;
mod admin_views;
mod audit;
mod backup;
mod caddy;
mod cluster;
pub(crate) mod config_check;
mod dashboards;
mod definition_files;
mod definitions;
mod jobs;
mod nginx;
mod operator_commands;
mod process;
mod prometheus;
mod rolling_restart;
mod script_fence;
mod secret_redaction;
mod simulated_users;
mod store_tls;
mod top;
mod upgrade;
