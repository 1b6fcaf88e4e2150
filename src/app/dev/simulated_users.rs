//! Controls of the simulated users on the admin listener: `GET` and `PUT /admin/dev/crowd`.
//!
//! The routes are not part of the documented API. Only `usher dev` has them.

use axum::Router;
use axum::extract::State;
use axum::routing::get;
use serde::{Deserialize, Serialize};

use crate::dev::simulated_users::{
    MAX_MINUTES, MAX_PEOPLE, PACE_PERCENT_RANGE, SimulatedUsers, SimulationSettings,
};
use crate::http::problem::FieldError;
use crate::http::{JsonBody, ProblemDetails};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct SimulationSettingsDto {
    people: u32,
    #[serde(default = "default_pace")]
    pace_percent: u32,
    #[serde(default = "default_minutes")]
    minutes: u32,
}

fn default_pace() -> u32 {
    SimulationSettings::STOPPED.pace_percent
}

fn default_minutes() -> u32 {
    SimulationSettings::STOPPED.minutes
}

/// The current run, and counts since the start of the process.
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

pub(super) fn router(users: SimulatedUsers) -> Router {
    Router::new().route("/admin/dev/crowd", get(read).put(configure)).with_state(users)
}

async fn read(State(users): State<SimulatedUsers>) -> JsonBody<SimulationStateDto> {
    let state = users.state();
    let counts = state.counts;
    JsonBody(SimulationStateDto {
        people: state.settings.people,
        pace_percent: state.settings.pace_percent,
        minutes: state.settings.minutes,
        seconds_left: state.remaining.as_secs(),
        in_line: counts.waiting,
        inside: counts.active,
        owners: counts.owners,
        visits: counts.visits,
        gave_up: counts.gave_up,
        held: counts.held,
        given_back: counts.released,
        paid: counts.paid,
        cancelled: counts.cancelled,
        failed: counts.failed,
    })
}

async fn configure(
    users: State<SimulatedUsers>,
    JsonBody(settings): JsonBody<SimulationSettingsDto>,
) -> Result<JsonBody<SimulationStateDto>, ProblemDetails> {
    let fields = [
        ("people", settings.people, 0..=MAX_PEOPLE),
        ("pace_percent", settings.pace_percent, PACE_PERCENT_RANGE),
        ("minutes", settings.minutes, 1..=MAX_MINUTES),
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
    let SimulationSettingsDto { people, pace_percent, minutes } = settings;
    users.configure(SimulationSettings { people, pace_percent, minutes });
    Ok(read(users).await)
}
