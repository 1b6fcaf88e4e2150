//! Seats: holds, maps, streams, races, lists, changed definitions and archived sales.

mod admin_reservations;
mod archive;
mod best_adjacent;
mod definition_changes;
mod hold;
mod idempotent_holds;
mod past_shows;
mod races;
mod races_with_kill;
mod reservation_lists;
mod seat_counts;
mod seat_maps;
mod seat_stream;
