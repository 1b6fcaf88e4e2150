//! Tools for development and tests: private servers, simulated users, and `usher top`.
//!
//! `usher dev` and the tests need real servers without any setup. A private Redis or MariaDB
//! belongs to one process and ends with it. It runs on a free port of 127.0.0.1, writes only below
//! one directory that the caller names, and shares nothing with the servers of the machine. It is
//! tied to a pipe of its owner (see `supervised.rs`), so that even an owner killed with -9 leaves
//! no server.
//!
//! The environment variables `USHER_DEV_REDIS_SERVER` and `USHER_DEV_MYSQLD` name other programs to
//! run, for example a Valkey or a MySQL: `make test-engines` runs the tests on several.
//!
//! `usher serve` uses nothing of this module.

pub mod banner;
mod error;
mod mysql_program;
mod mysql_server;
mod private_server;
mod programs;
mod redis_server;
mod resources;
pub mod simulated_users;
mod supervised;
mod temp_dir;
pub mod top;

pub use error::Error;
pub use mysql_server::{MysqlDurability, PrivateMysql};
pub use private_server::PrivateServer;
pub use redis_server::{PrivateRedis, redis_program};
pub use resources::free_port;
pub use temp_dir::TempDir;
