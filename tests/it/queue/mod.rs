//! The queue: admission, positions, draws, visits, settings that change, the event stream and the
//! waiting page.

mod abandoned;
mod admission;
mod clocks;
mod estimate;
mod event_stream;
mod gate;
pub(crate) mod idle_queues;
mod line;
mod lottery;
pub(crate) mod model;
mod removal;
mod settings_changes;
mod visits;
mod waiting_page;
