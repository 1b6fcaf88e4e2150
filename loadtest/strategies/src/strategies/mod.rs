//! The strategies, one a file, each as small as its idea allows.

pub(crate) mod kafka;
pub(crate) mod lease;
pub(crate) mod mail;
pub(crate) mod mutex_inside;
pub(crate) mod mutex_outside;
pub(crate) mod mutex_per_user;
pub(crate) mod optimistic;
pub(crate) mod pubsub_lock;
pub(crate) mod rabbitmq;
pub(crate) mod redlock;
pub(crate) mod row_lock;
pub(crate) mod simple_lock;
pub(crate) mod spin_lock;
pub(crate) mod usher_http;
pub(crate) mod usher_scripts;
