//! The scripts of users.

use std::sync::Arc;

use crate::ids::UserId;
use crate::partition::Partition;
use crate::redis::{
    BatchScript, Error, KeyBuilder, KeyScope, LuaScript, ReplyReader, ScriptArgs, scripts,
};

/// `users/record`.
pub(super) struct RecordBatch;

impl BatchScript for RecordBatch {
    type Entity = Partition;
    type Request = (UserId, Arc<str>);
    type Answer = ();

    fn script(&self) -> &'static LuaScript {
        &scripts::USERS_RECORD
    }

    fn scope<'a>(&self, _: &KeyBuilder, entity: &'a Partition) -> KeyScope<'a> {
        KeyScope::partition(*entity)
    }

    fn write_args(
        &self,
        _: &Partition,
        requests: &[(UserId, Arc<str>)],
        args: &mut ScriptArgs,
    ) -> Result<(), Error> {
        for (user, text) in requests {
            args.bytes(user.as_bytes()).text(text);
        }
        Ok(())
    }

    fn read_answers(
        &self,
        _: &Partition,
        requests: &[(UserId, Arc<str>)],
        _: ReplyReader,
    ) -> Result<Vec<()>, Error> {
        Ok(vec![(); requests.len()])
    }
}
