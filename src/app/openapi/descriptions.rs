//! Descriptions of what many operations share. A description of the operation, the schema or the
//! property itself wins.

use serde_json::{Value, json};

use super::{items_of, members_of, operations, schema_name};

/// Tags with their descriptions.
const TAGS: [(&str, &str); 9] = [
    ("queue", "Virtual waiting queues: join, wait, be admitted."),
    ("catalogue", "Concerts and their schedules."),
    ("reservation", "Seats: maps, holds, reservations."),
    ("payment", "Payments of holds."),
    ("wallet", "Balances and their ledger."),
    ("coupon", "First-come-first-served discount coupons."),
    ("reward", "Points that each user can claim once."),
    ("admin", "The log of what operators did."),
    ("audit", "Checks of every guarantee against both stores."),
];

/// Parameters by name.
const PARAMETERS: [(&str, &str); 11] = [
    ("concert", "The id of the concert."),
    ("queue", "The id of the queue."),
    ("coupon", "The id of the coupon."),
    ("code", "The code of the reward."),
    ("schedule", "The id of the schedule."),
    ("user", "The id of the user."),
    ("id", "The id of the resource, as the call that made it returned it."),
    ("path", "Any further path. It is not evaluated."),
    (
        "If-Match",
        "`ETag`s of the definition: another version is refused with 412. `*`: it must exist. Without \
         it any version is changed.",
    ),
    ("If-None-Match", "`*`: the definition must not exist yet, else 412."),
    (
        "Idempotency-Key",
        "A key that the client makes up for this request, 1 to 255 visible ASCII characters. A \
         repeated request with the same key has the effect of one.",
    ),
];

/// Statuses, where the operation does not describe them.
const STATUSES: [(&str, &str); 13] = [
    ("200", "The request succeeded."),
    ("202", "The request is accepted, but its outcome is not durable yet."),
    ("204", "Done. The response has no body."),
    ("400", "`malformed_request`: the request can't be parsed."),
    ("401", "`unauthenticated`: the identity or the queue token is missing or invalid."),
    ("403", "`forbidden`: the caller is known, but not allowed to do this."),
    ("404", "`not_found`: the resource does not exist, or belongs to another user."),
    ("409", "The state of the resource does not permit this; `code` names the reason."),
    ("410", "`queue_token_expired`: the place or the active time of the queue token is over."),
    ("412", "`precondition_failed`: `If-Match` or `If-None-Match` does not hold."),
    ("415", "`unsupported_media_type`: the route does not read this content type."),
    ("422", "`invalid_request`: some fields are invalid; `errors` names them."),
    ("503", "`overloaded`: a limit of the instance is reached."),
];

/// Schemas by name.
const SCHEMAS: [(&str, &str); 16] = [
    ("AdminQueues", "A page of queues, sorted by their id."),
    ("AdminReservations", "A page of reservations, newest first."),
    ("BestReservation", "A number of adjacent seats."),
    ("Concerts", "A page of concerts."),
    ("NewLedgerEntry", "An amount to add or to take out."),
    ("NewPayment", "The payment of a hold."),
    ("NewReservation", "The seats to hold."),
    ("Payment", "The payment of a reservation."),
    ("Reservations", "A page of reservations, newest first."),
    ("Schedules", "The schedules of a concert, in order."),
    ("SeatLayout", "The sections of a schedule."),
    ("SeatMap", "All seats of a schedule, by number."),
    ("SeatStatuses", "The statuses of all seats of a schedule."),
    ("Wallet", "The balance of a user."),
    ("WalletEntries", "A page of ledger entries, newest first."),
    ("WalletEntry", "One change of a balance."),
];

/// Properties by name, where the schema does not describe them.
const PROPERTIES: [(&str, &str); 38] = [
    ("active", "Whether claims are possible."),
    ("active_until", "The end of the visit. Null before it starts and after it ends."),
    ("available_seats", "The number of seats that are neither held nor sold."),
    ("balance_after", "The balance after the payment. Null until the payment is confirmed."),
    (
        "booking_closes_at",
        "From this time on no seats can be held. Null means the start of the show.",
    ),
    ("booking_opens_at", "Before this time no seats can be held. Null means no limit."),
    ("cancel_until", "Until this time users can cancel reservations. Null means `starts_at`."),
    ("checks", "The result of each check."),
    ("closes_at", "From this time on no user can join or is admitted. Null means never."),
    ("concert_title", "The title of the concert."),
    ("definition", "The definition, as `PUT` takes it."),
    ("drawn_at", "The time of the draw. Null before it."),
    ("ends_at", "The first moment at which it is not possible any more. Null means no limit."),
    ("issued_quantity", "The number of issued coupons."),
    ("items", "The items of this page, in the order of the list."),
    ("lottery", "The values with which users can verify the draw. Null without a lottery."),
    ("max_active", "The highest number of active users."),
    ("method", "Who takes the money, or in the log of operators the HTTP method."),
    ("next", "The cursor of the next page. Null on the last page."),
    ("number", "The number of the seat in its schedule, from 1."),
    ("opens_at", "Before this time no user is admitted. Null means immediately."),
    ("payment_id", "The id of the payment."),
    ("peer", "The address of the client."),
    ("provider", "Who took the money."),
    ("quantity", "The number of seats."),
    ("refund_due_amount", "What the provider has to pay back."),
    ("request_id", "The id of the request in the log."),
    ("route", "The path of the route, with its parameters."),
    ("seats", "The seats, in the order of their numbers."),
    ("section", "The name of the section."),
    ("settled_at", "The time at which the payment ended. Null while it is pending."),
    ("starts_at", "The start of the schedule."),
    ("title", "The title for users."),
    ("total_seats", "The number of seats."),
    ("used_at", "The time at which a payment redeemed the coupon. Null while it is unused."),
    ("user_id", "The id of the user."),
    ("value", "The value that the fact is compared with."),
    ("currency", "The currency of all amounts (ISO 4217)."),
];

pub(super) fn complete(document: &mut Value) {
    for (name, schema) in members_of(document.pointer_mut("/components/schemas")) {
        describe(schema, find(&SCHEMAS, name));
        describe_properties(schema);
    }
    let schemas = document["components"]["schemas"].clone();
    let mut tags = Vec::new();
    for operation in operations(document) {
        tags.extend(operation["tags"].as_array().into_iter().flatten().cloned());
        for parameter in items_of(operation.get_mut("parameters")) {
            let name = parameter["name"].as_str().unwrap_or_default().to_owned();
            describe(parameter, find(&PARAMETERS, &name));
        }
        for (status, response) in members_of(operation.get_mut("responses")) {
            let of_schema = schema_description(&response["content"], &schemas);
            describe(response, of_schema.or_else(|| find(&STATUSES, status)));
        }
    }
    let used = TAGS.iter().filter(|(name, _)| tags.iter().any(|tag| tag == name));
    document["tags"] =
        used.map(|(name, text)| json!({ "name": name, "description": text })).collect();
}

fn describe_properties(schema: &mut Value) {
    for (name, property) in members_of(schema.get_mut("properties")) {
        if property.get("$ref").is_none() {
            // A nullable reference carries the description in its first variant.
            let inner = property["oneOf"][0]["description"].as_str().map(str::to_owned);
            describe(property, inner.as_deref().or_else(|| find(&PROPERTIES, name)));
        }
    }
}

/// Sets the description unless there is one.
fn describe(target: &mut Value, text: Option<&str>) {
    let empty = target["description"].as_str().is_none_or(str::is_empty);
    if let (true, Some(text)) = (empty, text) {
        target["description"] = text.into();
    }
}

fn find(table: &[(&str, &'static str)], name: &str) -> Option<&'static str> {
    table.iter().find(|(known, _)| *known == name).map(|(_, text)| *text)
}

/// The description of the schema that a successful response has.
fn schema_description<'a>(content: &Value, schemas: &'a Value) -> Option<&'a str> {
    let name = schema_name(&content["application/json"]["schema"])?;
    schemas[name]["description"].as_str()
}
