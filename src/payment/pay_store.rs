//! The call of `lua/payment/pay.lua`, for the payments of a queue whose wallets are in any
//! partition.

use std::sync::Arc;

use super::record::Payment;
use crate::idempotency::KeyedRequest;
use crate::ids::{EntryId, PaymentId, QueueId, ReservationId, ScheduleId};
use crate::money::Money;
use crate::partition::Partition;
use crate::redis::codes::PaymentPayCode;
use crate::redis::{
    BatchOperation, Error, KeyScope, LuaScript, RedisClient, ReplyReader, ScriptArgs, scripts,
};
use crate::seats::Reservation;

/// A payment by wallet, without a coupon.
pub(super) struct PayRequest {
    pub(super) payment: PaymentId,
    pub(super) reservation: ReservationId,
    pub(super) keyed: KeyedRequest,
    /// What the user expects to pay.
    pub(super) expected: Option<Money>,
    /// The schedules of the queue. The reservation is for one of them.
    pub(super) schedules: Arc<[ScheduleId]>,
}

/// `payment/pay`. The answer is `None` for a payment that must be made in steps. Nothing was changed
/// then.
pub(super) struct PayOperation {
    pub(super) redis: RedisClient,
}

impl BatchOperation for PayOperation {
    type Entity = QueueId;
    type Request = PayRequest;
    type Answer = Option<(Payment, Reservation)>;

    fn script(&self) -> &'static LuaScript {
        &scripts::PAYMENT_PAY
    }

    async fn call(
        &self,
        queue: &QueueId,
        requests: &[PayRequest],
    ) -> Result<Vec<Self::Answer>, Error> {
        let keys = self.redis.keys();
        let partition_of = |request: &PayRequest| keys.partition(request.keyed.user.slot());
        // The script reads the requests of one partition together.
        let mut order: Vec<usize> = (0..requests.len()).collect();
        order.sort_by_key(|at| partition_of(&requests[*at]));
        let groups: Vec<&[usize]> = order
            .chunk_by(|a, b| partition_of(&requests[*a]) == partition_of(&requests[*b]))
            .collect();
        let partitions: Vec<Partition> =
            groups.iter().map(|group| partition_of(&requests[group[0]])).collect();
        // The newest list: a reservation of a schedule that is not in it is paid in steps.
        let schedules = requests.last().map(|request| request.schedules.clone());
        let schedules = schedules.unwrap_or_default();
        let mut args = ScriptArgs::new();
        args.text(queue.as_str()).int(count(schedules.len()));
        for schedule in schedules.iter() {
            args.text(schedule.as_str());
        }
        args.int(count(partitions.len()));
        for (partition, group) in partitions.iter().zip(&groups) {
            // No epoch is empty, so a partition that does not serve is refused.
            let epoch = self.redis.epochs().get(*partition).map(|epoch| epoch.to_string());
            args.text(epoch.as_deref().unwrap_or_default()).int(count(group.len()));
            for at in *group {
                write_request(&requests[*at], &mut args);
            }
        }
        let scope = KeyScope {
            partitions: &partitions,
            schedules: &schedules,
            ..KeyScope::queue(keys, queue)
        };
        let mut reply = self.redis.call(self.script(), scope, args).await?.words()?;
        let mut answers: Vec<Self::Answer> = requests.iter().map(|_| None).collect();
        for at in order {
            answers[at] = read_answer(&mut reply)?;
        }
        Ok(answers)
    }
}

fn count(length: usize) -> i64 {
    i64::try_from(length).unwrap_or(i64::MAX)
}

fn write_request(request: &PayRequest, args: &mut ScriptArgs) {
    let KeyedRequest { user, key, fingerprint } = &request.keyed;
    args.bytes(user.as_bytes()).text(key).bytes(fingerprint);
    args.bytes(request.payment.as_bytes()).bytes(request.reservation.as_bytes());
    args.bytes(EntryId::new(user.slot()).as_bytes());
    args.optional_int(request.expected.map(Money::get));
}

fn read_answer(reply: &mut ReplyReader) -> Result<Option<(Payment, Reservation)>, Error> {
    match reply.code()? {
        PaymentPayCode::Paid => Ok(Some((reply.record()?, reply.record()?))),
        PaymentPayCode::Steps => {
            reply.word()?;
            reply.word()?;
            Ok(None)
        }
    }
}
