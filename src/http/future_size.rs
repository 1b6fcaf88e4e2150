//! How much room a handler takes while it answers: for tests that hold the busiest ones to a bound.
//!
//! A handler's future is allocated and moved for every request, with room for its rarest path. A call to Redis or a transaction of MySQL takes five to eight
//! kilobytes, so such a path is boxed where it begins. Where it was not, a join took a sixth more of the processor (`loadtest/README.md`).

/// The most that a busy handler takes, in bytes.
pub(crate) const MAX_BYTES: usize = 2_048;

/// What the future of a handler takes, in bytes. It is never made: the closure is there for its type.
pub(crate) fn of<F: Future>(_handler: impl FnOnce() -> F) -> usize {
    size_of::<F>()
}

/// Stands for an argument of such a call.
pub(crate) fn any<T>() -> T {
    unreachable!("the handler is never called")
}
