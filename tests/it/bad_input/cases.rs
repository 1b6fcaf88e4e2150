//! Rows, cases, and errors that every route has in common.

use reqwest::Method;
use serde_json::{Value, json};

use super::fixture::BadInputFixture;
use crate::support::api::ApiRequest;

/// A route with everything that can be wrong with a request to it.
pub(super) struct BadInputRow {
    pub(super) method: Method,
    pub(super) template: &'static str,
    pub(super) cases: Vec<BadInputCase>,
}

/// A request, and the problem it must get.
pub(super) struct BadInputCase {
    pub(super) what: String,
    pub(super) call: ApiRequest,
    pub(super) status: u16,
    pub(super) code: &'static str,
    pub(super) field: Option<String>,
    pub(super) headers: Vec<&'static str>,
}

impl BadInputRow {
    pub(super) fn new(
        method: Method,
        template: &'static str,
        groups: Vec<Vec<BadInputCase>>,
    ) -> Self {
        Self { method, template, cases: groups.into_iter().flatten().collect() }
    }
}

impl BadInputCase {
    pub(super) fn new(
        what: impl Into<String>,
        call: ApiRequest,
        status: u16,
        code: &'static str,
    ) -> Self {
        Self { what: what.into(), call, status, code, field: None, headers: Vec::new() }
    }

    /// 422 with this field among its errors.
    pub(super) fn invalid(
        what: impl Into<String>,
        call: ApiRequest,
        field: impl Into<String>,
    ) -> Self {
        let case = Self::new(what, call, 422, "invalid_request");
        Self { field: Some(field.into()), ..case }
    }

    pub(super) fn with_header(mut self, header: &'static str) -> Self {
        self.headers.push(header);
        self
    }
}

/// The default of `USHER_BODY_LIMIT_BYTES`.
const BODY_LIMIT: usize = 64 << 10;
/// The default of `USHER_ADMIN_BODY_LIMIT_BYTES`.
const ADMIN_BODY_LIMIT: usize = 8 << 20;

/// Invalid bodies for any admin route that reads a JSON object.
pub(super) fn admin_bodies(good: &Value, call: impl Fn() -> ApiRequest) -> Vec<BadInputCase> {
    bodies_up_to(ADMIN_BODY_LIMIT, good, call)
}

/// Invalid bodies for any route that reads a JSON object.
pub(super) fn bodies(good: &Value, call: impl Fn() -> ApiRequest) -> Vec<BadInputCase> {
    bodies_up_to(BODY_LIMIT, good, call)
}

/// As [`bodies`], for a listener with another limit.
fn bodies_up_to(limit: usize, good: &Value, call: impl Fn() -> ApiRequest) -> Vec<BadInputCase> {
    let text = good.to_string();
    let mut unknown = good.clone();
    unknown["colour"] = json!("red");
    let raw = |body: &str| call().raw("application/json", body.to_owned());
    let malformed =
        |what: &str, body: &str| BadInputCase::new(what, raw(body), 400, "malformed_request");
    let mut cases = vec![
        malformed("no body", ""),
        malformed("half a body", &text[..text.len() - 1]),
        malformed("a body and more", &format!("{text} {{}}")),
        malformed("no JSON", "amount=5"),
        malformed("a NaN", r#"{"colour": NaN}"#),
        malformed("a hexadecimal number", r#"{"colour": 0x10}"#),
        BadInputCase::invalid("a list", raw("[]"), ""),
        BadInputCase::invalid("null", raw("null"), ""),
        BadInputCase::invalid("a number", raw("5"), ""),
        BadInputCase::invalid("an unknown field", call().json(&unknown), "colour"),
        BadInputCase::new(
            "a form",
            call().raw("application/x-www-form-urlencoded", text.clone()),
            415,
            "unsupported_media_type",
        ),
        BadInputCase::new(
            "no type",
            call().raw("text/plain", text.clone()),
            415,
            "unsupported_media_type",
        ),
        BadInputCase::new(
            "compressed",
            call().header("content-encoding", "gzip").raw("application/json", text.clone()),
            415,
            "unsupported_media_type",
        ),
        BadInputCase::new(
            "too long",
            raw(&format!("{text}{}", " ".repeat(limit))),
            413,
            "body_too_large",
        ),
    ];
    for (name, value) in good.as_object().unwrap() {
        let twice = format!("{{\"{name}\": {value}, {}", &text[1..]);
        cases.push(BadInputCase::invalid(format!("{name} twice"), raw(&twice), name.as_str()));
    }
    let mut nested = Vec::new();
    nested_objects(good, &mut String::new(), &mut nested);
    for at in nested {
        let mut body = good.clone();
        let object = std::mem::replace(body.pointer_mut(&at).unwrap(), json!("the object"));
        let (name, value) = object.as_object().unwrap().iter().next().unwrap();
        let twice = format!("{{\"{name}\": {value}, {}", &object.to_string()[1..]);
        let text = body.to_string().replace("\"the object\"", &twice);
        let what = format!("{at}/{name} twice");
        cases.push(BadInputCase::new(what, raw(&text), 422, "invalid_request"));
    }
    cases
}

/// The pointers of all objects below the top that have a field.
fn nested_objects(value: &Value, at: &mut String, found: &mut Vec<String>) {
    let children: Vec<(String, &Value)> = match value {
        Value::Object(fields) => fields.iter().map(|(name, it)| (name.clone(), it)).collect(),
        Value::Array(items) => {
            items.iter().enumerate().map(|(i, it)| (i.to_string(), it)).collect()
        }
        _ => return,
    };
    if value.is_object() && !at.is_empty() && !children.is_empty() {
        found.push(at.clone());
    }
    for (name, child) in children {
        let length = at.len();
        at.push('/');
        at.push_str(&name);
        nested_objects(child, at, found);
        at.truncate(length);
    }
}

/// Sets a field of a body to invalid values. `at` is a JSON pointer, `field` the name in errors.
pub(super) fn field(
    good: &Value,
    at: &str,
    field: &str,
    bad: Vec<Value>,
    call: impl Fn() -> ApiRequest,
) -> Vec<BadInputCase> {
    let set = |value: Value| {
        let mut body = good.clone();
        match body.pointer_mut(at) {
            Some(place) => *place = value,
            None => {
                let (object, name) = at.rsplit_once('/').unwrap();
                body.pointer_mut(object).unwrap()[name] = value;
            }
        }
        body
    };
    bad.into_iter()
        .map(|value| {
            let body = set(value.clone());
            // Numbers such as 1e400 are not a serde_json::Value, so they are texts that begin with
            // a hash.
            let text = match value.as_str().and_then(|text| text.strip_prefix('#')) {
                Some(raw) => body.to_string().replace(&value.to_string(), raw),
                None => body.to_string(),
            };
            BadInputCase::invalid(
                format!("{field} = {value}"),
                call().raw("application/json", text),
                field,
            )
        })
        .collect()
}

/// A missing field.
pub(super) fn missing(
    good: &Value,
    at: &str,
    field: &str,
    call: impl Fn() -> ApiRequest,
) -> Vec<BadInputCase> {
    let (object, name) = at.rsplit_once('/').unwrap();
    let mut body = good.clone();
    body.pointer_mut(object).unwrap().as_object_mut().unwrap().remove(name).unwrap();
    vec![BadInputCase::invalid(format!("{field} is missing"), call().json(&body), field)]
}

/// Invalid identities. `call` has none.
pub(super) fn identities(call: impl Fn() -> ApiRequest) -> Vec<BadInputCase> {
    let bad = |what: &str, call: ApiRequest| BadInputCase::new(what, call, 401, "unauthenticated");
    vec![
        bad("no identity", call()),
        bad("an empty id", call().user("")),
        bad("129 characters", call().user(&"x".repeat(129))),
        bad("an id with a space", call().user("a b")),
        bad("an id with a control character", call().user("a\tb")),
        bad(
            "two users",
            call().user(&crate::support::new_user()).user(&crate::support::new_user()),
        ),
    ]
}

/// Invalid tokens. `call` has none.
pub(super) fn tokens(
    fixture: &BadInputFixture,
    call: impl Fn() -> ApiRequest,
) -> Vec<BadInputCase> {
    let token = fixture.alice.token.as_str();
    let (signed, mac) = token.rsplit_once('.').unwrap();
    let bad =
        |what: &str, call: ApiRequest| BadInputCase::new(what, call, 401, "invalid_queue_token");
    let long = format!("{token}{}", "A".repeat(100_000));
    vec![
        bad("no token", call()),
        bad("an empty token", call().token("")),
        bad("no token at all", call().token("let me in")),
        bad("a truncated token", call().token(&token[..token.len() - 1])),
        bad("a token without its mac", call().token(signed)),
        bad("a token with another kid", call().token(&token.replacen("k1.", "k2.", 1))),
        bad("the mac of another token", call().token(&format!("{signed}.{}", fixture.bob_mac()))),
        bad("a mac cut short", call().token(&format!("{signed}.{}", &mac[..20]))),
        bad("a token of another key", call().token(&fixture.foreign_token())),
        bad("a long token", call().token(&long[..4_000])),
        bad("two tokens", call().token(token).token(token)),
        BadInputCase::new(
            "another user's identity",
            call().token(token).user(&fixture.bob.user),
            403,
            "wrong_user",
        ),
        BadInputCase::new(
            "a broken identity",
            call().token(token).user("a b"),
            401,
            "unauthenticated",
        ),
    ]
}

/// A missing idempotency key, and [`invalid_keys`]. `call` has none.
pub(super) fn keys(call: impl Fn() -> ApiRequest) -> Vec<BadInputCase> {
    let mut cases = invalid_keys(&call);
    cases.push(BadInputCase::new("no key", call(), 400, "idempotency_key_required"));
    cases
}

/// Invalid idempotency keys, also for routes where the key is optional. `call` has none.
pub(super) fn invalid_keys(call: impl Fn() -> ApiRequest) -> Vec<BadInputCase> {
    let bad =
        |what: &str, call: ApiRequest| BadInputCase::new(what, call, 400, "malformed_request");
    vec![
        bad("an empty key", call().key("")),
        bad("a key with a space", call().key("a b")),
        bad("a long key", call().key(&"k".repeat(129))),
        bad("two keys", call().key("a").key("a")),
    ]
}

/// Names in a path that no object can have. `call` takes the name.
pub(super) fn names(unknown: &str, call: impl Fn(&str) -> ApiRequest) -> Vec<BadInputCase> {
    let long = "x".repeat(65);
    let huge = "x".repeat(2_000);
    [unknown, "a%20b", "%7Bp1%7D", "a%3Ab", "%00", "%ff", "%2e%2e", &long, &huge]
        .map(|name| BadInputCase::new(format!("the name {name:.70}"), call(name), 404, "not_found"))
        .into()
}

/// Names that an operator cannot choose. `call` takes the name.
pub(super) fn new_names(field: &str, call: impl Fn(&str) -> ApiRequest) -> Vec<BadInputCase> {
    let long = "x".repeat(65);
    ["a%20b", "%7Bp1%7D", "a%3Ab", "%00", "%ff", &long]
        .map(|name| BadInputCase::invalid(format!("the name {name}"), call(name), field))
        .into()
}

/// Ids of objects that do not exist. `call` takes the id.
pub(super) fn ids(call: impl Fn(&str) -> ApiRequest) -> Vec<BadInputCase> {
    let unknown = crate::support::new_user();
    let upper_half = &unknown[..18];
    [unknown.as_str(), "1", "x", upper_half, "%00", "%7Bp1%7D", &unknown.replace('-', "")]
        .map(|id| BadInputCase::new(format!("the id {id}"), call(id), 404, "not_found"))
        .into()
}

/// Invalid pages of a list. `call` takes the query.
pub(super) fn pages(call: impl Fn(&str) -> ApiRequest) -> Vec<BadInputCase> {
    let limits = ["0", "501", "-1", "1.5", "1e1", "ten", "", "99999999999999999999"];
    let limits = limits.map(|limit| {
        BadInputCase::invalid(
            format!("the limit {limit}"),
            call(&format!("?limit={limit}")),
            "limit",
        )
    });
    let befores = ["x", "-1", "%00", ""];
    let befores = befores.map(|before| {
        BadInputCase::invalid(
            format!("before {before}"),
            call(&format!("?before={before}")),
            "before",
        )
    });
    let unknown = BadInputCase::invalid("an unknown parameter", call("?after=1"), "after");
    limits.into_iter().chain(befores).chain([unknown]).collect()
}
