//! Tests of decoding outbox entries.

use proptest::prelude::*;

use super::*;
use crate::outbox::lua_packer::LuaPacker;

const AT: i64 = 1_763_700_000_123;
/// Not UTF-8, like most ids.
const ID: [u8; 16] = [0xff; 16];
/// Sixteen bytes that are valid UTF-8.
const USER: &[u8; 16] = b"abcdefghijklmnop";

fn entry(lua: LuaPacker) -> LuaPacker {
    let lua = lua.array(2).str("entry").map(6).str("id").str(ID).str("user").str(USER);
    lua.str("kind")
        .str("charge")
        .str("amount")
        .int(500)
        .str("balance")
        .int(crate::money::MAX)
        .str("at")
        .int(AT)
}

fn reservation(lua: LuaPacker, seats: impl FnOnce(LuaPacker) -> LuaPacker) -> LuaPacker {
    let lua = lua
        .array(2)
        .str("reservation")
        .map(12)
        .str("id")
        .str(ID)
        .str("user")
        .str(USER)
        .str("queue")
        .str("q");
    let lua = seats(lua.str("concert").str("c").str("schedule").str("s").str("seats"));
    let lua = lua
        .str("detail")
        .str(r#"[{"number":12,"section":"가","price":100}]"#)
        .str("amount")
        .int(100);
    let lua = lua.str("status").str("confirmed").str("held_until").int(AT + 300_000);
    lua.str("created_at").int(AT - 1).str("at").int(AT)
}

fn payment(lua: LuaPacker, optional: bool) -> LuaPacker {
    let lua = payment_fields(lua.array(2).str("payment").map(if optional { 12 } else { 10 }));
    if optional { lua.str("reason").nil().str("balance_after").int(7) } else { lua }
}

fn payment_fields(lua: LuaPacker) -> LuaPacker {
    let lua = lua
        .str("id")
        .str(ID)
        .str("reservation")
        .str(USER)
        .str("user")
        .str(USER)
        .str("queue")
        .str("q");
    let lua = lua
        .str("amount")
        .int(100)
        .str("discount")
        .int(0)
        .str("status")
        .str("declined")
        .str("attempt")
        .int(2);
    lua.str("created_at").int(AT).str("at").int(AT)
}

fn external_payment(lua: LuaPacker) -> LuaPacker {
    let lua = payment_fields(lua.array(2).str("payment").map(11)).str("external").map(6);
    let lua = lua.str("wallet_amount").int(30).str("due_amount").int(70).str("due_at").int(AT);
    let lua = lua.str("provider").str("toss").str("reference").str("pay_1").str("refunds").array(1);
    lua.map(3).str("reference").str("r").str("amount").int(5).str("at").int(AT)
}

fn pending(lua: LuaPacker) -> LuaPacker {
    let lua = lua.array(2).str("pending").map(13).str("id").str(ID).str("reservation").str(USER);
    let lua = lua.str("user").str(USER).str("queue").str("q").str("schedule").str("s");
    let lua = lua.str("attempt").int(1).str("discount").int(0).str("wallet_amount").int(30);
    let lua = lua.str("created_at").int(AT).str("due_at").int(AT).str("at").int(AT);
    lua.str("payment_record").str([0x81, 0xff]).str("reservation_record").str("text")
}

fn promotion(lua: LuaPacker, count: impl FnOnce(LuaPacker) -> LuaPacker) -> LuaPacker {
    let lua = lua.array(2).str("promotion").map(7).str("queue").str("q").str("from").int(1 << 40);
    let lua = lua.str("limit").int(10).str("interval").int(1_000);
    count(lua.str("to").int((1 << 40) + 9).str("count")).str("at").int(AT)
}

fn issues(lua: LuaPacker, pairs: impl AsRef<[u8]>) -> LuaPacker {
    let lua = lua.array(2).str("issues").map(4).str("coupon").str("c").str("issued_at").int(AT);
    lua.str("terms").str("percent:15:3000:0:").str("pairs").str(pairs)
}

/// `cmsgpack` omits nil fields, so a returned issue has neither `used_at` nor `payment`.
fn issue_use(lua: LuaPacker, used: bool) -> LuaPacker {
    let lua = lua
        .array(2)
        .str("use")
        .map(if used { 7 } else { 5 })
        .str("id")
        .str(ID)
        .str("coupon")
        .str("c");
    let lua = lua.str("user").str(USER).str("issued_at").int(AT);
    let lua = if used { lua.str("used_at").int(AT + 1).str("payment").str(ID) } else { lua };
    lua.str("at").int(AT + 2)
}

fn claim(lua: LuaPacker, failed: bool) -> LuaPacker {
    let lua = lua
        .array(2)
        .str("claim")
        .map(if failed { 6 } else { 5 })
        .str("id")
        .str(ID)
        .str("reward")
        .str("r");
    let lua =
        lua.str("user").str(USER).str("status").str(if failed { "failed" } else { "success" });
    let lua = if failed { lua.str("reason").str("ended") } else { lua };
    lua.str("at").int(AT)
}

fn facts(lua: LuaPacker, text: &str) -> LuaPacker {
    lua.array(2).str("facts").map(3).str("user").str(USER).str("facts").str(text).str("at").int(AT)
}

fn user(lua: LuaPacker, name: &str) -> LuaPacker {
    lua.array(2).str("user").map(3).str("user").str(USER).str("name").str(name).str("at").int(AT)
}

/// Payloads of every kind of event, for `fuzz_tests`.
pub(crate) fn samples() -> Vec<Vec<u8>> {
    [
        entry(LuaPacker::default().array(1)),
        reservation(LuaPacker::default().array(1), |lua| lua.array(2).int(12).int(200)),
        payment(payment(LuaPacker::default().array(2), true), false),
        pending(external_payment(LuaPacker::default().array(2))),
        promotion(LuaPacker::default().array(1), |lua| lua.int(10)),
        issues(LuaPacker::default().array(1), [*USER, ID].concat()),
        issue_use(issue_use(LuaPacker::default().array(2), true), false),
        claim(claim(LuaPacker::default().array(2), true), false),
        facts(LuaPacker::default().array(1), r#"{"login_days":7}"#),
        user(LuaPacker::default().array(1), "auth0|5f7c"),
    ]
    .into_iter()
    .map(|lua| lua.0)
    .collect()
}

#[test]
fn external_payment_decodes() {
    let events = pending(external_payment(LuaPacker::default().array(2))).decode().unwrap();
    let [OutboxEvent::Payment(paid), OutboxEvent::Pending(waiting)] = events.as_slice() else {
        panic!("{events:?}")
    };
    let external = paid.external.as_ref().unwrap();
    assert_eq!((external.due_amount.unwrap().get(), external.paid_back()), (70, 5));
    assert_eq!(waiting.payment_record, [0x81, 0xff], "bytes that are no text");
    assert_eq!(waiting.reservation_record, b"text");
}

#[test]
fn recorded_user_decodes() {
    let events = user(LuaPacker::default().array(1), "auth0|5f7c").decode().unwrap();
    let [OutboxEvent::User(recorded)] = &events[..] else { panic!("{events:?}") };
    assert_eq!((recorded.user.as_bytes(), recorded.name.to_string()), (USER, "auth0|5f7c".into()));
    assert!(user(LuaPacker::default().array(1), "a b").decode().is_err());
}

#[test]
fn coupon_and_reward_events_decode() {
    let lua = issue_use(
        issue_use(issues(LuaPacker::default().array(6), [*USER, ID, ID, *USER].concat()), true),
        false,
    );
    let events = facts(claim(claim(lua, false), true), r#"{"login_days":7}"#).decode().unwrap();
    let [
        OutboxEvent::Issues(issued),
        OutboxEvent::Use(used),
        OutboxEvent::Use(returned),
        OutboxEvent::Claim(success),
        OutboxEvent::Claim(failure),
        OutboxEvent::Facts(facts),
    ] = events.as_slice()
    else {
        panic!("{events:?}");
    };
    assert_eq!((issued.coupon.as_str(), issued.issued_at), ("c", used.issued_at));
    let pairs: Vec<_> =
        issued.pairs.iter().map(|(user, id)| (*user.as_bytes(), *id.as_bytes())).collect();
    assert_eq!(pairs, [(*USER, ID), (ID, *USER)]);
    assert_eq!((events[0].count(), events[1].count()), (2, 1));
    assert_eq!(used.used_at.map(|at| at.timestamp_millis()), Some(AT + 1));
    assert!(used.payment.is_some());
    assert_eq!((returned.used_at, returned.payment), (None, None));
    assert_eq!((success.status, success.reason.as_deref()), (ClaimStatus::Success, None));
    assert_eq!((failure.status, failure.reason.as_deref()), (ClaimStatus::Failed, Some("ended")));
    assert_eq!(facts.facts, r#"{"login_days":7}"#);
}

#[test]
fn issues_must_be_whole_pairs() {
    let text = *b"abcdefghijklmnopABCDEFGHIJKLMNOP";
    assert!(issues(LuaPacker::default().array(1), text).decode().is_ok(), "valid UTF-8");
    for bad in [0, 1, 16, 31, 33, 48] {
        assert!(
            issues(LuaPacker::default().array(1), vec![b'a'; bad]).decode().is_err(),
            "{bad} bytes"
        );
    }
}

#[test]
fn facts_must_be_a_json_object() {
    for bad in ["", "[]", "7", "{"] {
        assert!(facts(LuaPacker::default().array(1), bad).decode().is_err(), "{bad}");
    }
}

#[test]
fn events_keep_their_order() {
    let lua = LuaPacker::default().array(4);
    let lua = reservation(payment(entry(lua), true), |lua| lua.array(2).int(12).int(200));
    let events = promotion(lua, |lua| lua.int(10)).decode().unwrap();
    let [
        OutboxEvent::Entry(entry),
        OutboxEvent::Payment(payment),
        OutboxEvent::Reservation(reservation),
        OutboxEvent::Promotion(promotion),
    ] = events.as_slice()
    else {
        panic!("{events:?}");
    };
    assert_eq!((entry.id.as_bytes(), entry.user.as_bytes()), (&ID, USER));
    assert_eq!(
        (entry.kind, entry.amount.get(), entry.balance.get()),
        (EntryKind::Charge, 500, crate::money::MAX)
    );
    assert_eq!(entry.at.timestamp_millis(), AT);
    assert_eq!(
        (payment.reason.as_deref(), payment.balance_after, payment.attempt),
        (None, Money::new(7), 2)
    );
    assert_eq!(
        (payment.status, payment.reservation.as_bytes()),
        (PaymentEventStatus::Declined, USER)
    );
    assert_eq!(
        (reservation.seats.as_slice(), reservation.status.as_str()),
        (&[12, 200][..], "confirmed")
    );
    assert!(reservation.detail.contains('가'));
    assert_eq!((promotion.from, promotion.to, promotion.count), (1 << 40, (1 << 40) + 9, 10));
}

/// Events packed by `cmsgpack` inside Redis 7.0: keys in no order, nil fields omitted, whole
/// doubles as integers, and an empty table for the seats.
const PACKED_BY_REDIS: &str = "\
    9492a5656e74727986a26174cf0000019aa4b6457ba762616c616e63650fa475736572b0616263646566676869\
    6a6b6c6d6e6f70a26964b0ffffffffffffffffffffffffffffffffa46b696e64a6636861726765a6616d6f756e\
    74cf001fffffffffffff92ab7265736572766174696f6e8ca87363686564756c65a173a475736572b061626364\
    65666768696a6b6c6d6e6f70a26964b0ffffffffffffffffffffffffffffffffaa637265617465645f6174cf00\
    00019aa4b6457aa57175657565a171a26174cf0000019aa4b6457ba7636f6e63657274a163a6616d6f756e7405\
    a6737461747573a872656c6561736564aa68656c645f756e74696ccf0000019aa4b6457ca5736561747390a664\
    657461696ca25b5d92a77061796d656e748aab7265736572766174696f6eb0ffffffffffffffffffffffffffff\
    ffffa475736572b06162636465666768696a6b6c6d6e6f70a26964b0ffffffffffffffffffffffffffffffffaa\
    637265617465645f6174cf0000019aa4b6457ba57175657565a171a26174cf0000019aa4b6457ba6616d6f756e\
    7401a6737461747573a6766f69646564a7617474656d707401a8646973636f756e740092a970726f6d6f74696f\
    6e87a56c696d69740aa8696e74657276616ccd03e8a26174cf0000019aa4b6457ba2746fcf0000010000000007a466726f6dcf0000010000000000a5636f756e\
    7402a57175657565a171";

#[test]
fn entry_packed_by_redis_decodes() {
    let digits =
        PACKED_BY_REDIS.as_bytes().chunks(2).map(|pair| std::str::from_utf8(pair).unwrap());
    let payload: Vec<u8> = digits.map(|pair| u8::from_str_radix(pair, 16).unwrap()).collect();
    let events = decode(VERSION, &payload).unwrap();
    let [
        OutboxEvent::Entry(entry),
        OutboxEvent::Reservation(reservation),
        OutboxEvent::Payment(payment),
        OutboxEvent::Promotion(promotion),
    ] = events.as_slice()
    else {
        panic!("{events:?}");
    };
    assert_eq!((entry.amount.get(), entry.balance.get()), (crate::money::MAX, 15));
    assert_eq!(
        (reservation.status, reservation.seats.as_slice()),
        (ReservationEventStatus::Released, &[][..])
    );
    assert_eq!((payment.status, payment.reason.as_deref()), (PaymentEventStatus::Voided, None));
    assert_eq!((promotion.to - promotion.from, promotion.at.timestamp_millis()), (7, AT));
}

#[test]
fn absent_field_is_none() {
    let events = payment(LuaPacker::default().array(1), false).decode().unwrap();
    assert!(matches!(
        &events[..],
        [OutboxEvent::Payment(PaymentEvent { reason: None, balance_after: None, .. })]
    ));
}

#[test]
fn empty_map_is_an_empty_list() {
    assert_eq!(LuaPacker::default().array(0).decode().unwrap(), []);
    assert_eq!(LuaPacker::default().map(0).decode().unwrap(), []);
    for seats in [LuaPacker::array as fn(LuaPacker, u8) -> LuaPacker, LuaPacker::map] {
        let events =
            reservation(LuaPacker::default().array(1), |lua| seats(lua, 0)).decode().unwrap();
        assert!(matches!(&events[..], [OutboxEvent::Reservation(event)] if event.seats.is_empty()));
    }
}

#[test]
fn invalid_payloads_are_rejected() {
    let one = || LuaPacker::default().array(1);
    let newer = decode("v2", &entry(one()).0);
    assert!(matches!(newer, Err(EventDecodeError::Version(version)) if version == "v2"));
    assert!(matches!(entry(one()).int(1).decode(), Err(EventDecodeError::Trailing(1))));
    let bad = [
        one().array(2).str("unknown").map(0),
        one().array(3).str("promotion").map(0).int(1),
        one().int(1),
        one(),
        LuaPacker::default().map(1).str("a").int(1),
        promotion(one(), |lua| lua.int(-1)),
        promotion(one(), |lua| lua.int(1 << 33)),
        promotion(one(), |lua| lua.double(1.0)),
        promotion(one(), |lua| lua.str("1")),
        promotion(one(), |lua| lua.int(1).str("more").int(1)),
        reservation(one(), |lua| lua.map(1).int(1).int(12)),
    ];
    for lua in bad {
        assert!(lua.decode().is_err(), "{:02x?}", lua.0);
    }
    let mut short_id = entry(one()).0;
    let start = short_id.windows(16).position(|window| window == USER).unwrap();
    short_id[start - 1] = 0xaf;
    short_id.remove(start);
    assert!(decode(VERSION, &short_id).is_err());
    let late = entry(one()).0;
    let mut late = late[..late.len() - 8].to_vec();
    late.extend(LATE.to_be_bytes());
    assert!(decode(VERSION, &late).is_err());
}

/// One millisecond after the last that a DATETIME can hold.
const LATE: i64 = 253_402_300_800_000;

proptest! {
    #[test]
    fn random_bytes_do_not_panic(bytes in prop::collection::vec(any::<u8>(), 0..512)) {
        let _ = decode(VERSION, &bytes);
    }

    #[test]
    fn damaged_entries_do_not_panic(at in 0_usize..400, byte: u8, cut in 0_usize..400) {
        let lua = reservation(payment(entry(LuaPacker::default().array(3)), true), |lua| lua.array(1).int(12));
        let mut bytes = lua.0;
        let at = at % bytes.len();
        bytes[at] = byte;
        let _ = decode(VERSION, &bytes);
        bytes.truncate(cut);
        let _ = decode(VERSION, &bytes);
    }
}
