//! The commands for incidents and their arguments.

use clap::{Args, Subcommand};
use serde_json::{Map, Value, json};

use crate::app::{OperatorCommand, parse_assignment};
use crate::config::args::OperatorArgs;
use crate::ids::{QueueId, ReservationId, ScheduleId, UserName};

#[derive(Subcommand)]
pub(super) enum QueueCommand {
    /// Stop admitting users; they can still join
    Pause(NamedQueue),
    /// Admit users
    Open(NamedQueue),
    /// Stop admitting users and refuse joins; waiting users keep their places
    Close(NamedQueue),
    /// Change settings, such as `usher queue set show max_active=500`
    Set {
        /// Id of the queue
        queue: QueueId,
        /// Settings as field=value; the value is JSON or a text, null resets the field
        #[arg(required = true, value_name = "FIELD=VALUE", value_parser = parse_assignment)]
        settings: Vec<(String, Value)>,
        #[command(flatten)]
        access: OperatorArgs,
    },
}

#[derive(Args)]
pub(super) struct NamedQueue {
    /// Id of the queue
    queue: QueueId,
    #[command(flatten)]
    access: OperatorArgs,
}

#[derive(Subcommand)]
pub(super) enum UserCommand {
    /// Print everything about a user
    Show {
        /// Id of the user
        user: UserName,
        #[command(flatten)]
        access: OperatorArgs,
    },
    /// Remove a user from a queue and release their holds
    Remove {
        /// Id of the queue
        queue: QueueId,
        /// Id of the user
        user: UserName,
        #[command(flatten)]
        access: OperatorArgs,
    },
}

#[derive(Subcommand)]
pub(super) enum ReservationCommand {
    /// Cancel a confirmed reservation and refund it, at any time
    Cancel {
        /// Id of the reservation
        reservation: ReservationId,
        /// Why, for the records
        #[arg(long)]
        reason: String,
        #[command(flatten)]
        access: OperatorArgs,
    },
}

#[derive(Subcommand)]
pub(super) enum ScheduleCommand {
    /// Call off a date and refund every reservation of it
    Cancel {
        /// Id of the schedule
        schedule: ScheduleId,
        /// Why, for the records
        #[arg(long)]
        reason: String,
        #[command(flatten)]
        access: OperatorArgs,
    },
}

#[derive(Subcommand)]
pub(super) enum JobCommand {
    /// Print the jobs, newest first
    List(OperatorArgs),
}

#[derive(Args)]
pub(super) struct ApplyArgs {
    /// File in YAML or JSON; - reads standard input
    #[arg(short, long, value_name = "FILE")]
    file: String,
    /// Print the difference and change nothing
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    access: OperatorArgs,
}

impl ApplyArgs {
    pub(super) fn into_request(self) -> OperatorRequest {
        let Self { file, dry_run, access } = self;
        (access, OperatorCommand::Apply { file, only_show: dry_run })
    }
}

/// What to do, and on which instance.
pub(super) type OperatorRequest = (OperatorArgs, OperatorCommand);

impl QueueCommand {
    pub(super) fn into_request(self) -> OperatorRequest {
        let set_mode = |NamedQueue { queue, access }, mode: &str| {
            let change = Map::from_iter([("mode".to_owned(), json!(mode))]);
            (access, OperatorCommand::PatchQueue(queue, change))
        };
        match self {
            Self::Pause(queue) => set_mode(queue, "paused"),
            Self::Open(queue) => set_mode(queue, "open"),
            Self::Close(queue) => set_mode(queue, "closed"),
            Self::Set { queue, settings, access } => {
                (access, OperatorCommand::PatchQueue(queue, settings.into_iter().collect()))
            }
        }
    }
}

impl UserCommand {
    pub(super) fn into_request(self) -> OperatorRequest {
        match self {
            Self::Show { user, access } => (access, OperatorCommand::ShowUser(user)),
            Self::Remove { queue, user, access } => {
                (access, OperatorCommand::RemoveUser(queue, user))
            }
        }
    }
}

impl ReservationCommand {
    pub(super) fn into_request(self) -> OperatorRequest {
        let Self::Cancel { reservation, reason, access } = self;
        (access, OperatorCommand::CancelReservation(reservation, reason))
    }
}

impl ScheduleCommand {
    pub(super) fn into_request(self) -> OperatorRequest {
        let Self::Cancel { schedule, reason, access } = self;
        (access, OperatorCommand::CancelSchedule(schedule, reason))
    }
}

impl JobCommand {
    pub(super) fn into_request(self) -> OperatorRequest {
        let Self::List(access) = self;
        (access, OperatorCommand::ListJobs)
    }
}
