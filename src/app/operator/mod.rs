//! The commands for incidents: `usher queue`, `user`, `reservation`, `schedule` and `job`; and
//! `usher apply` and `export` for definitions.
//!
//! They call the admin API of a running instance, so the API checks, logs and spreads every change.
//! A command that can't be undone asks first.

mod client;
mod definition_file;
mod definitions;

use std::io::{IsTerminal, Write};

use serde_json::{Map, Value, json};

use crate::config::OperatorSettings;
use crate::ids::{QueueId, ReservationId, ScheduleId, UserName};
use client::AdminClient;

/// What an operator wants to do.
#[derive(Debug, Clone)]
pub enum OperatorCommand {
    /// Changes some settings of a queue.
    PatchQueue(QueueId, Map<String, Value>),
    ShowUser(UserName),
    RemoveUser(QueueId, UserName),
    CancelReservation(ReservationId, String),
    CancelSchedule(ScheduleId, String),
    ListJobs,
    /// Prints all definitions.
    Export,
    /// Makes the definitions those of a file, or shows the difference only.
    Apply {
        file: String,
        only_show: bool,
    },
}

#[derive(Debug, thiserror::Error)]
pub enum OperatorError {
    #[error(
        "{url} does not answer ({cause}): USHER_ADMIN_URL (--admin-url) must be the address of an \
         admin listener"
    )]
    NoResponse { url: String, cause: String },
    /// The instance refused the call.
    #[error("{status} {code}: {detail}")]
    Refused { status: u16, code: String, detail: String },
    /// What is wrong with a file of definitions.
    #[error("{0}")]
    File(String),
    #[error("{name}: {cause}")]
    Definition { name: String, cause: Box<OperatorError> },
    #[error("changed by another operator meanwhile: run the command again")]
    ChangedMeanwhile,
    #[error("this can't be undone: confirm it with --yes")]
    NotConfirmed,
    #[error("cannot write to standard output: {0}")]
    Output(#[from] std::io::Error),
}

/// Runs a command and prints what it did.
///
/// # Errors
/// When the instance does not answer or refuses the call, or the operator does not confirm it.
pub async fn operate(
    settings: &OperatorSettings,
    command: OperatorCommand,
) -> Result<(), OperatorError> {
    let client = AdminClient::new(&settings.url, settings.key.clone());
    let done = match command {
        OperatorCommand::PatchQueue(queue, change) => patch_queue(&client, &queue, change).await?,
        OperatorCommand::ShowUser(user) => {
            format!("{:#}", client.get(&format!("/admin/users/{}", encoded(&user))).await?)
        }
        OperatorCommand::RemoveUser(queue, user) => {
            confirm(settings, &format!("Remove {user} from the queue {queue}, with all holds?"))?;
            client.delete(&format!("/admin/queues/{queue}/users/{}", encoded(&user))).await?;
            format!("{user} is removed from the queue {queue}")
        }
        OperatorCommand::CancelReservation(id, reason) => {
            confirm(settings, &format!("Cancel and refund the reservation {id}?"))?;
            let path = format!("/admin/reservations/{id}/cancel");
            let reservation = client.post(&path, json!({ "reason": reason })).await?;
            format!("reservation {id}: {}", text(&reservation, "status"))
        }
        OperatorCommand::CancelSchedule(id, reason) => {
            confirm(settings, &format!("Call off {id} and refund every reservation of it?"))?;
            let path = format!("/admin/schedules/{id}/cancel");
            let job = client.post(&path, json!({ "reason": reason })).await?;
            format!("{id} is called off\n{}", job_line(&job))
        }
        OperatorCommand::Export => definitions::export(&client).await?.trim_end().to_owned(),
        OperatorCommand::Apply { file, only_show } => {
            let file = definitions::read(&file)?;
            let print = |line: &str| writeln!(std::io::stdout(), "{line}");
            return definitions::apply(&client, file, only_show, print).await;
        }
        OperatorCommand::ListJobs => {
            let jobs = client.get("/admin/jobs?limit=500").await?;
            let lines = jobs["items"].as_array().into_iter().flatten().map(job_line);
            let lines: Vec<String> = lines.collect();
            if lines.is_empty() { "no jobs".to_owned() } else { lines.join("\n") }
        }
    };
    writeln!(std::io::stdout(), "{done}")?;
    Ok(())
}

/// Changes settings and reports each with its earlier value.
async fn patch_queue(
    client: &AdminClient,
    queue: &QueueId,
    change: Map<String, Value>,
) -> Result<String, OperatorError> {
    let path = format!("/admin/queues/{queue}");
    let before = client.get(&path).await?;
    let names: Vec<String> = change.keys().cloned().collect();
    let after = client.patch(&path, Value::Object(change)).await?;
    let line = |name: &String| {
        let (old, new) = (&before["definition"][name], &after["definition"][name]);
        if old == new {
            format!("queue {queue}: {name} is {new} already")
        } else {
            format!("queue {queue}: {name} is {new}, it was {old}")
        }
    };
    Ok(names.iter().map(line).collect::<Vec<_>>().join("\n"))
}

fn job_line(job: &Value) -> String {
    let [id, kind, status] = ["id", "kind", "status"].map(|name| text(job, name));
    let schedule = text(job, "schedule_id");
    let (done, total, failures) = (&job["done"], &job["total"], &job["failures"]);
    format!("job {id}  {kind} {schedule}  {status}  {done} of {total}, {failures} failed")
}

fn text<'a>(object: &'a Value, name: &str) -> &'a str {
    object[name].as_str().unwrap_or("?")
}

fn encoded(user: &UserName) -> String {
    form_urlencoded::byte_serialize(user.to_string().as_bytes()).collect()
}

/// Asks the operator, unless `--yes` was given.
fn confirm(settings: &OperatorSettings, question: &str) -> Result<(), OperatorError> {
    if settings.is_confirmed {
        return Ok(());
    }
    if !std::io::stdin().is_terminal() {
        return Err(OperatorError::NotConfirmed);
    }
    write!(std::io::stderr(), "{question} This can't be undone. [y/N] ")?;
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer)?;
    let is_yes = ["y", "yes"].contains(&answer.trim().to_ascii_lowercase().as_str());
    if is_yes { Ok(()) } else { Err(OperatorError::NotConfirmed) }
}

/// Reads `field=value`. The value is JSON, or else a text.
///
/// # Errors
/// A sentence for the operator.
pub fn parse_assignment(text: &str) -> Result<(String, Value), String> {
    let (name, value) = text
        .split_once('=')
        .filter(|(name, _)| !name.is_empty())
        .ok_or_else(|| "must be field=value, such as max_active=500".to_owned())?;
    let value = serde_json::from_str(value).unwrap_or_else(|_| value.into());
    Ok((name.to_owned(), value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn assignment_is_json_or_text() {
        for (text, name, value) in [
            ("max_active=500", "max_active", json!(500)),
            ("mode=paused", "mode", json!("paused")),
            ("message=null", "message", Value::Null),
            ("message=a=b", "message", json!("a=b")),
            ("message={\"en\":\"Hello\"}", "message", json!({"en": "Hello"})),
            ("message=", "message", json!("")),
        ] {
            assert_eq!(parse_assignment(text), Ok((name.to_owned(), value)), "{text}");
        }
        for bad in ["", "mode", "=5"] {
            assert!(parse_assignment(bad).is_err(), "{bad}");
        }
    }
}
