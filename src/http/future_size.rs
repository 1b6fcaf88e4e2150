//! The size of the futures of handlers, for tests that limit those of the busiest handlers.
//!
//! The future of a handler is allocated and moved for every request, and is as large as its rarest
//! path. A call to Redis or a transaction of MySQL takes five to eight kilobytes, so rare paths are
//! boxed. Without the boxes a join took 17 % more processor time.

/// The limit for the future of a busy handler.
pub(crate) const MAX_BYTES: usize = 2_048;

/// The size in bytes of the future that `_handler` returns. The handler is not called.
pub(crate) fn of<F: Future>(_handler: impl FnOnce() -> F) -> usize {
    size_of::<F>()
}

/// A placeholder for an argument of such a handler.
pub(crate) fn any<T>() -> T {
    unreachable!("the handler is never called")
}
