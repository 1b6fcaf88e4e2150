//! The queue: admission, positions, settings that change, the event stream and the waiting page.

mod admission;
mod event_stream;
mod gate;
pub(crate) mod model;
mod settings_changes;
mod waiting_page;
