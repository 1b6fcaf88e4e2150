//! The strategies, each as small as its idea allows.

pub(crate) mod kafka_partition;
pub(crate) mod lease_lock;
pub(crate) mod optimistic_version;
pub(crate) mod pending_replies;
pub(crate) mod process_mutex;
pub(crate) mod pubsub_lock;
pub(crate) mod rabbitmq_queue;
pub(crate) mod redlock;
pub(crate) mod row_lock;
pub(crate) mod simple_lock;
pub(crate) mod spin_lock;
pub(crate) mod usher_http;
