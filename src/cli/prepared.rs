//! Runs a command whose settings are valid.

use std::io::Write;

use super::config_check::SettingsCheck;
use crate::app::{self, OperatorCommand};
use crate::config::dev::DevSettings;
use crate::config::{MigrateSettings, MysqlSettings, OperatorSettings, StoreSettings, UsherConfig};
use crate::dev::top;
use crate::ids::{ConcertId, QueueId};
use crate::partition::PartitionCount;

/// A command with validated settings.
#[derive(Debug)]
pub enum PreparedCommand {
    /// `usher serve`
    Serve(Box<UsherConfig>),
    /// `usher dev`
    Dev(Box<DevSettings>),
    /// `usher migrate`
    Migrate(MigrateSettings),
    /// `usher seed demo`
    SeedDemo(StoreSettings),
    /// `usher audit`
    Audit(StoreSettings),
    /// `usher audit queue`
    AuditQueue(QueueId, StoreSettings),
    /// `usher archive`
    Archive(ConcertId, StoreSettings),
    /// `usher recover`
    Recover(Option<u16>, StoreSettings),
    /// `usher repartition`
    Repartition(StoreSettings, PartitionCount),
    /// `usher dead-letters list`
    ListDeadLetters(MysqlSettings),
    /// `usher dead-letters retry`
    RetryDeadLetters(Option<(u16, u64)>, MysqlSettings),
    /// `usher queue`, `user`, `reservation`, `schedule` and `job`
    Operate(OperatorSettings, Box<OperatorCommand>),
    /// `usher admin-log`
    AdminLog(u32, MysqlSettings),
    /// `usher top`
    Top(top::TopSettings),
    /// `usher config check`
    CheckConfig(Box<SettingsCheck>),
    /// `usher keys rotate`
    RotateKeys(MysqlSettings),
    /// `usher openapi`
    Openapi { admin: bool },
}

impl PreparedCommand {
    /// Runs the command.
    ///
    /// # Errors
    /// Why the command failed.
    pub async fn run(self) -> Result<(), app::Error> {
        match self {
            Self::Serve(config) => Box::pin(app::serve(*config)).await,
            Self::Dev(settings) => Box::pin(app::dev(*settings)).await,
            Self::Migrate(settings) => app::migrate(&settings).await,
            Self::SeedDemo(stores) => Box::pin(app::seed_demo(&stores)).await,
            Self::Audit(stores) => require_passed(Box::pin(app::audit(&stores)).await?),
            Self::AuditQueue(queue, stores) => {
                require_passed(Box::pin(app::audit_queue(&stores, &queue)).await?)
            }
            Self::Archive(concert, stores) => Box::pin(app::archive(&stores, &concert)).await,
            Self::Recover(partition, stores) => Box::pin(app::recover(&stores, partition)).await,
            Self::Repartition(stores, to) => {
                require_passed(Box::pin(app::repartition(&stores, to)).await?)
            }
            Self::ListDeadLetters(settings) => app::list_dead_letters(&settings).await,
            Self::RetryDeadLetters(only, settings) => {
                app::retry_dead_letters(&settings, only).await
            }
            Self::Operate(settings, command) => Ok(app::operate(&settings, *command).await?),
            Self::AdminLog(newest, settings) => app::print_admin_log(&settings, newest).await,
            Self::Top(settings) => Ok(top::run(&settings).await?),
            Self::CheckConfig(check) => Box::pin(check.run()).await,
            Self::RotateKeys(settings) => app::rotate_keys(&settings).await,
            Self::Openapi { admin } => {
                let document = if admin { app::admin_document() } else { app::public_document() };
                writeln!(std::io::stdout(), "{document:#}").map_err(app::Error::Output)
            }
        }
    }
}

fn require_passed(passed: bool) -> Result<(), app::Error> {
    if passed { Ok(()) } else { Err(app::Error::AuditFailed) }
}
