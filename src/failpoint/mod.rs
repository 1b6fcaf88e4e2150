//! Fail points: places where a test can kill, freeze or block a process.
//!
//! Only the feature `failpoints` compiles them. The tests enable it for their build; a release does
//! not contain them.
//!
//! The environment variable `FAILPOINTS` sets actions:
//! `FAILPOINTS="rewards/claim.after=return(kill)"`, separated by `;`. The fail points are:
//!
//! | name | reached |
//! |:--|:--|
//! | `<module>/<script>.before` | before a call of that script is sent to Redis |
//! | `<module>/<script>.after` | when its reply has arrived and no caller has it yet |
//! | `writer.before_transaction` | before a flush that has something to write |
//! | `writer.before_commit` | when a flush has written all rows and checkpoints, before its commit |
//! | `writer.after_commit` | after the commit, while the entries are still in the outboxes |
//! | `writer.after_trim` | when the entries are trimmed |
//! | `repartition.before_commit` | when all partitions are fenced |
//! | `repartition.after_commit` | when MySQL has the new number of partitions, before any is restored |
//! | `recovery.before_commit` | when a partition is restored and Redis has the new epoch, but MySQL does not |
//! | `redis.many_servers` | when a script may use several partitions. With the action `return` none does, as in a cluster |
//! | `redis.load_scripts` | when the fences of a new Redis server are read, before it has the scripts |
//!
//! A payment calls `payment/pay`, or in steps `payment/begin`, `coupons/reserve`, `wallet/debit`, `payment/confirm`,
//! `coupons/redeem`, `payment/finish_redemption`. A void calls `payment/void`, `wallet/refund`,
//! `coupons/return_issue`, `payment/finish_void`.
//!
//! The actions are:
//!
//! | action | effect |
//! |:--|:--|
//! | `return(kill)` | ends the process immediately, as kill -9 does |
//! | `return(stop)` | freezes the process, as SIGSTOP does, until SIGCONT |
//! | `return(until PATH)` | blocks until the file exists. The batch lane of a script waits too, with later requests |
//!
//! `3*off->1*return(kill)` skips the first three times, `5%return(kill)` kills with a probability
//! of 5 %; see the crate `fail`. Each action is logged.

#[cfg(feature = "failpoints")]
mod points;

#[cfg(feature = "failpoints")]
pub use points::{Error, configure, is_set, reach};

/// Without the feature no fail point is set.
#[cfg(not(feature = "failpoints"))]
pub fn is_set(_name: &str) -> bool {
    false
}

/// Reaches the fail point whose name the format string gives. Without the feature it compiles to
/// nothing.
macro_rules! failpoint {
    ($($name:tt)+) => {
        #[cfg(feature = "failpoints")]
        $crate::failpoint::reach(&format!($($name)+)).await;
    };
}
pub(crate) use failpoint;
