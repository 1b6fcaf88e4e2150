//! Fuzz tests: untrusted input never causes a panic, and invalid input is never accepted.
//!
//! Each target mutates valid samples at random and parses them. `USHER_TEST_FUZZ_INPUTS` sets the number
//! of inputs (`make fuzz`: ten million), and `USHER_TEST_SEED` repeats a run. An input that causes
//! a panic is printed.

#![allow(clippy::unwrap_used, reason = "a test that fails should panic")]

use std::panic::{AssertUnwindSafe, catch_unwind};

use axum::extract::FromRequestParts;
use axum::http::header::{AUTHORIZATION, COOKIE};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Request};
use futures::FutureExt;
use secrecy::SecretString;
use serde_json::json;
use uuid::Uuid;

use crate::http::idempotency::IdempotencyKey;
use crate::http::identity::{IdentityResolver, IdentitySettings};
use crate::http::jwt;
use crate::ids::{CouponId, PaymentId, QueueId, UserName};
use crate::outbox::event;
use crate::queue::{Claims, TokenSigner};
use crate::{catalogue, coupons, http, payment, queue, rewards, seats, wallet};

const DEFAULT_INPUTS: u64 = 20_000;
const MAX_INPUT_BYTES: usize = 2_000;

/// splitmix64: fast, and deterministic for a seed.
struct SplitMixRng(u64);

impl SplitMixRng {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `end`; 0 when `end` is 0.
    fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % u64::try_from(end.max(1)).unwrap()).unwrap()
    }

    fn byte(&mut self) -> u8 {
        self.next().to_le_bytes()[0]
    }
}

/// Values that often break parsers.
const EDGE_CASES: [&[u8]; 14] = [
    b"\0",
    b"\xff\xfe",
    "ä🎫".as_bytes(),
    b"9007199254740993",
    b"-1",
    b"1e309",
    b"0x10",
    b"null",
    b"[[[[[[[[",
    b"\"\\ud800\"",
    b"{p1}",
    b"..",
    b"\xdf\xff\xff\xff\xff",
    b"\xdd\xff\xff\xff\xff",
];

/// A random sample with one to six mutations. One in a hundred stays unchanged.
fn mutate(rng: &mut SplitMixRng, samples: &[Vec<u8>]) -> Vec<u8> {
    let mut input = samples[rng.below(samples.len())].clone();
    if rng.below(100) == 0 {
        return input;
    }
    for _ in 0..=rng.below(6) {
        let at = rng.below(input.len());
        let end = at + rng.below(input.len() - at.min(input.len()));
        match rng.below(8) {
            0 if !input.is_empty() => input[at] ^= 1 << rng.below(8),
            1 if !input.is_empty() => input[at] = rng.byte(),
            2 => input.insert(at, rng.byte()),
            3 => drop(input.drain(at..end)),
            4 => {
                drop(input.splice(at..end, EDGE_CASES[rng.below(EDGE_CASES.len())].iter().copied()))
            }
            5 => {
                let copy = input[at..end].to_vec();
                drop(input.splice(at..at, copy));
            }
            6 => {
                let other = &samples[rng.below(samples.len())];
                input.truncate(at);
                input.extend_from_slice(&other[rng.below(other.len())..]);
            }
            _ => input.truncate(end),
        }
        input.truncate(MAX_INPUT_BYTES);
    }
    input
}

fn fuzz(target: &str, samples: &[Vec<u8>], mut parse: impl FnMut(&[u8])) {
    let number = |name: &str| {
        std::env::var(name)
            .ok()
            .filter(|text| !text.is_empty())
            .map(|text| text.parse().expect("a number"))
    };
    let seed = number("USHER_TEST_SEED").unwrap_or_else(rand::random);
    let inputs = number("USHER_TEST_FUZZ_INPUTS").unwrap_or(DEFAULT_INPUTS);
    let mut rng = SplitMixRng(seed);
    for at in 0..inputs {
        let input = mutate(&mut rng, samples);
        if catch_unwind(AssertUnwindSafe(|| parse(&input))).is_err() {
            panic!(
                "{target}, seed {seed}, input {at}: {:?} {input:?}",
                String::from_utf8_lossy(&input)
            );
        }
    }
    println!("{target}: {inputs} inputs, seed {seed}");
}

fn texts(samples: &[&str]) -> Vec<Vec<u8>> {
    samples.iter().map(|sample| sample.as_bytes().to_vec()).collect()
}

fn headers(name: HeaderName, value: &[u8]) -> Option<HeaderMap> {
    Some(HeaderMap::from_iter([(name, HeaderValue::from_bytes(value).ok()?)]))
}

#[test]
fn only_signed_tokens_are_accepted() {
    let key = |kid: &str, secret: &str| (kid.to_owned(), SecretString::from(secret));
    let signer = TokenSigner::new(&[key("k2", "the newer secret"), key("k1", "the older secret")]);
    let claims = |queue: &str, score| Claims {
        queue: queue.parse().unwrap(),
        user: Uuid::from_u128(7).into(),
        user_text: None,
        is_guest: false,
        score,
    };
    let name: UserName = "auth0|5f7c".parse().unwrap();
    let named = Claims { user: name.key(), user_text: name.text_to_record(), ..claims("demo", 2) };
    let signed = [
        claims("demo", 1),
        claims("a", (1 << 53) - 1),
        claims(&"q".repeat(64), 1 << 40),
        Claims { is_guest: true, ..claims("demo", 3) },
        named,
    ];
    let samples: Vec<_> = signed.iter().map(|claims| signer.sign(claims).into_bytes()).collect();
    fuzz("tokens", &samples, |input| {
        let Ok(text) = std::str::from_utf8(input) else { return };
        if let Some(claims) = signer.verify(text) {
            assert!(signed.contains(&claims) && signer.sign(&claims) == text);
        }
        let _ = queue::demo_cookie(
            &headers(COOKIE, format!("a=b; usher-demo={text}").as_bytes()).unwrap_or_default(),
        );
    });
}

#[test]
fn ids_survive_a_round_trip() {
    let id = Uuid::new_v4().to_string();
    let samples =
        texts(&["demo", "a-B_9", "auth0|5f7c", &id, &id.to_uppercase(), "{p1}", &"x".repeat(64)]);
    fuzz("ids", &samples, |input| {
        let Ok(text) = std::str::from_utf8(input) else { return };
        if let Ok(id) = text.parse::<QueueId>() {
            assert_eq!(id.as_str(), text);
            assert!((1..=64).contains(&text.len()) && !text.contains(['{', '}', ':', '\0']));
        }
        let _ = text.parse::<CouponId>();
        for read in [
            text.parse::<UserName>().map(|id| id.to_string()),
            text.parse::<PaymentId>().map(|id| id.to_string()),
        ]
        .into_iter()
        .flatten()
        {
            assert!(read.eq_ignore_ascii_case(text), "{read}");
        }
    });
}

#[test]
fn bodies_are_parsed_or_refused() {
    let id = Uuid::new_v4().to_string();
    let samples: Vec<_> = [
        json!({"amount": 100}),
        json!({"reservation_id": id, "coupon_issue_id": null}),
        json!({"schedule_id": "night", "seats": [1, 2, 3]}),
        json!({"schedule_id": "night", "quantity": 2, "section": "A"}),
        json!({"mode": "open", "promote_per_interval": 10, "interval_ms": 1000, "max_active": 5,
            "active_seconds": 300, "claim_seconds": 60, "max_waiting": null, "opens_at": "2100-01-01T00:00:00Z",
            "closes_at": null, "prequeue_starts_at": null, "order": "lottery"}),
        json!({"title": "x", "queue_id": "q", "hold_seconds": 300, "payment_seconds": 600, "max_seats_per_user": 4, "cancel_until": null,
            "schedules": [{"id": "n", "starts_at": "2100-01-01T00:00:00.000Z",
            "sections": [{"name": "A", "from": 1, "to": 50, "price": 1000}]}]}),
        json!({"title": "x", "total_quantity": 5, "discount_amount": 100, "min_available_amount": 0,
            "issue_starts_at": "2020-01-01T00:00:00Z", "issue_ends_at": "2100-01-01T00:00:00+09:00"}),
        json!({"title": "x", "starts_at": "2020-01-01T00:00:00Z",
            "ends_at": "2100-01-01T00:00:00Z", "active": true,
            "conditions": [{"fact": "login_days", "op": ">=", "value": 7}],
            "reward": {"kind": "points", "amount": 5}}),
        json!({"login_days": 7, "purchases": -3}),
    ]
    .iter()
    .map(|sample| sample.to_string().into_bytes())
    .collect();
    fuzz("bodies", &samples, |input| {
        wallet::read_bodies(input);
        payment::read_bodies(input);
        seats::read_bodies(input);
        catalogue::read_bodies(input);
        coupons::read_bodies(input);
        rewards::read_bodies(input);
        http::json::parse_as::<queue::QueueSettings>(input);
    });
}

#[test]
fn events_are_decoded_or_refused() {
    let samples = event::samples();
    assert!(samples.iter().all(|sample| event::decode(event::VERSION, sample).is_ok()));
    fuzz("events", &samples, |input| {
        let _ = event::decode(event::VERSION, input);
    });
}

#[test]
fn headers_are_parsed_or_refused() {
    let user = Uuid::new_v4().to_string();
    let service = "5ervice-c2b7a9d84e5f6a1b3c8d7e9f0a";
    let jwt = jwt::JwtSettings {
        source: jwt::JwtKeySource::Secret("7c9e66790d1d4b1f7c0a5be1d94b1f0a".into()),
        audience: None,
        issuer: None,
    };
    let identities = IdentityResolver::new(&IdentitySettings {
        header: true,
        anyone_charges: false,
        guest: false,
        service_keys: vec![service.into()],
        jwt: Some(jwt),
    })
    .unwrap();
    let samples = texts(&[
        &user,
        &format!("Bearer {service}"),
        "Bearer eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJ4IiwiZXhwIjo0MTAyNDQ0ODAwfQ.c2lnbmF0dXJl",
        "Bearer eyJhbGciOiJub25lIn0.e30.",
        "203.0.113.9, 198.51.100.7",
        "[2001:db8::1]:443, 198.51.100.7:80",
        "key-1",
    ]);
    fuzz("headers", &samples, |input| {
        for name in [AUTHORIZATION, HeaderName::from_static("usher-user")] {
            let Some(headers) = headers(name.clone(), input) else { return };
            if let Ok(Some(caller)) = identities.identify(&headers) {
                assert!(name == "usher-user" && !caller.by_service);
                assert!(caller.name.to_string().as_bytes() == input && input.len() <= 128);
            }
        }
        if let Some(headers) = headers(HeaderName::from_static("x-forwarded-for"), input) {
            http::peer::client_address("192.0.2.1:4000".parse().unwrap(), &headers, 2);
        }
        let (mut parts, ()) = Request::new(()).into_parts();
        parts.headers = headers(http::idempotency::KEY_HEADER, input).unwrap_or_default();
        let read = IdempotencyKey::from_request_parts(&mut parts, &()).now_or_never().unwrap();
        if let Ok(key) = read {
            assert_eq!(key.as_str().as_bytes(), input);
            assert!(input.iter().all(u8::is_ascii_graphic) && input.len() <= 128);
        }
    });
}
