//! Fail points: places at which a test can kill, freeze or hold a process. Only the feature `failpoints` compiles them in, which the tests
//! switch on for their own build; a release knows nothing of them.
//!
//! The environment of a process says what happens where: `FAILPOINTS="rewards/claim.after=return(kill)"`, several with `;` between them. The
//! points are
//!
//! | name | is reached |
//! |:--|:--|
//! | `<room>/<verb>.before` | when a call of that script is about to be sent to Redis |
//! | `<room>/<verb>.after` | when its reply is here and nobody was told of it yet |
//! | `writer.before_transaction` | when a pass of the writer has something to write and has not begun |
//! | `writer.before_commit` | when all rows and checkpoints of a pass are written and nothing is committed |
//! | `writer.after_commit` | when a pass is committed and its entries still stand in the outboxes |
//! | `writer.after_trim` | when they are trimmed |
//! | `repartition.before_commit`, `repartition.after_commit` | every partition is barred; the new count is in MySQL, and nothing is laid yet |
//! | `recovery.before_commit` | when a partition is laid back, the new generation is in Redis and not yet in MySQL |
//! | `redis.load_scripts` | when the fences of a Redis that may be another were looked at and it does not know our scripts yet |
//!
//! A payment goes through `payment/begin`, `coupons/take`, `wallet/debit`, `payment/confirm`, `coupons/settle`, `payment/settled`, and back through
//! `payment/void`, `wallet/refund`, `coupons/give_back`, `payment/voided`.
//!
//! What can happen at a point:
//!
//! | action | does |
//! |:--|:--|
//! | `return(kill)` | ends the process at once, as kill -9 does: nothing is drained, closed or answered |
//! | `return(stop)` | freezes the process, as SIGSTOP does, until SIGCONT |
//! | `return(until PATH)` | holds whoever came here until that file exists. A script's lane in the coalescer waits with it: later requests of the same entity too |
//!
//! `3*off->1*return(kill)` lets three pass first, `5%return(kill)` kills one in twenty; the crate `fail` tells the rest. Whoever reaches a point that does
//! something says so in the log.

#[cfg(feature = "failpoints")]
mod points;

#[cfg(feature = "failpoints")]
pub use points::{Error, arm, reach};

/// A point by the name that its format text and arguments give. Nothing at all without the feature.
macro_rules! failpoint {
    ($($name:tt)+) => {
        #[cfg(feature = "failpoints")]
        $crate::failpoint::reach(&format!($($name)+)).await;
    };
}
pub(crate) use failpoint;
