//! The demo crowd's controls on the admin listener of `usher dev`: `GET` and `PUT /admin/dev/crowd`.
//!
//! No part of the contract and of its documents: in `usher serve` there is neither the route nor a crowd.

use axum::Router;
use axum::extract::State;
use axum::routing::get;
use serde::{Deserialize, Serialize};

use crate::dev::crowd::{MOST_MINUTES, MOST_PEOPLE, PACES, SimulatedUsers, SimulationSettings};
use crate::http::problem::FieldError;
use crate::http::{JsonBody, ProblemDetails};

/// What operators ask for; a field left out takes its default.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct SimulationSettingsDto {
    people: u32,
    #[serde(default = "usual_pace")]
    pace_percent: u32,
    #[serde(default = "usual_minutes")]
    minutes: u32,
}

fn usual_pace() -> u32 {
    SimulationSettings::NOBODY.pace_percent
}

fn usual_minutes() -> u32 {
    SimulationSettings::NOBODY.minutes
}

/// What it is like; the counts are of this process.
#[derive(Debug, Serialize)]
struct SimulationStateDto {
    people: u32,
    pace_percent: u32,
    minutes: u32,
    seconds_left: u64,
    in_line: u64,
    inside: u64,
    owners: u64,
    visits: u64,
    gave_up: u64,
    held: u64,
    given_back: u64,
    paid: u64,
    cancelled: u64,
    failed: u64,
}

/// The controls.
pub(super) fn router(crowd: SimulatedUsers) -> Router {
    Router::new().route("/admin/dev/crowd", get(show).put(put)).with_state(crowd)
}

async fn show(State(crowd): State<SimulatedUsers>) -> JsonBody<SimulationStateDto> {
    let state = crowd.state();
    let counts = state.counts;
    JsonBody(SimulationStateDto {
        people: state.wish.people,
        pace_percent: state.wish.pace_percent,
        minutes: state.wish.minutes,
        seconds_left: state.left.as_secs(),
        in_line: counts.in_line,
        inside: counts.inside,
        owners: counts.owners,
        visits: counts.visits,
        gave_up: counts.gave_up,
        held: counts.held,
        given_back: counts.given_back,
        paid: counts.paid,
        cancelled: counts.cancelled,
        failed: counts.failed,
    })
}

async fn put(
    state: State<SimulatedUsers>,
    JsonBody(wish): JsonBody<SimulationSettingsDto>,
) -> Result<JsonBody<SimulationStateDto>, ProblemDetails> {
    let fields = [
        ("people", wish.people, 0..=MOST_PEOPLE),
        ("pace_percent", wish.pace_percent, PACES),
        ("minutes", wish.minutes, 1..=MOST_MINUTES),
    ];
    let errors: Vec<_> = (fields.into_iter())
        .filter(|(_, value, range)| !range.contains(value))
        .map(|(field, _, range)| FieldError {
            field: field.to_owned(),
            message: format!("must be from {} to {}", range.start(), range.end()),
        })
        .collect();
    if !errors.is_empty() {
        return Err(ProblemDetails::invalid_request(errors));
    }
    let SimulationSettingsDto { people, pace_percent, minutes } = wish;
    state.wish(SimulationSettings { people, pace_percent, minutes });
    Ok(show(state).await)
}
