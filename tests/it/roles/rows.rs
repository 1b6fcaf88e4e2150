//! The rows: the request of each route, and the response for each role.

use reqwest::Method;
use serde_json::{Value, json};

use super::fixture::{CallerRole, CaseSetup, RoleCase, RoleFixture, reward};
use crate::coupons::payments::coupon;
use crate::support::api::ApiRequest;
use crate::support::world::{fast_queue_settings, schedule_definition};
use crate::support::{CONCERT, SCHEDULE, new_key};

/// Routes in no document, because they are not part of the API contract.
pub(super) const UNDOCUMENTED: [&str; 11] = [
    "/",
    "/bookings",
    "/waiting/{queue}",
    "/waiting/{queue}/place",
    "/docs/",
    "/openapi.json",
    "/healthz",
    "/readyz",
    "/metrics",
    "/admin/queues (public listener)",
    "/v1/wallet (admin listener)",
];

type RoleRequest = Box<dyn Fn(&RoleFixture, &RoleCase, CallerRole) -> ApiRequest + Send + Sync>;

/// A route, and the response for each of [`super::ROLES`], or an empty text if the role makes no
/// sense.
pub(super) struct RoleRow {
    pub(super) method: Method,
    pub(super) template: &'static str,
    note: &'static str,
    pub(super) needs: CaseSetup,
    pub(super) call: RoleRequest,
    /// The response for each role but the last two.
    answers: [&'static str; 6],
    /// Whether the role `operator` is enough.
    operator_may: bool,
}

impl RoleRow {
    /// Distinguishes rows of the same route.
    pub(super) fn note(&self) -> String {
        if self.note.is_empty() { String::new() } else { format!(" {}", self.note) }
    }

    /// Whether it is an admin route.
    pub(super) fn is_admins(&self) -> bool {
        self.template.starts_with("/admin/")
    }

    fn note_is(mut self, note: &'static str) -> Self {
        self.note = note;
        self
    }

    /// The responses for all roles. The keys of viewers and operators open only admin routes.
    pub(super) fn all_answers(&self) -> [&'static str; 8] {
        let [anonymous, user, other, thief, service, admin] = self.answers;
        let (viewer, operator) = match (self.is_admins(), self.method == Method::GET) {
            (false, _) => ("", ""),
            (true, true) => (admin, admin),
            (true, false) => (FORBIDDEN, if self.operator_may { admin } else { FORBIDDEN }),
        };
        [anonymous, user, other, thief, service, admin, viewer, operator]
    }

    /// An operator may call it, too.
    fn by_operator(mut self) -> Self {
        self.operator_may = true;
        self
    }

    /// The response to the admin.
    fn answering(mut self, answer: &'static str) -> Self {
        self.answers[5] = answer;
        self
    }

    fn bought(mut self) -> Self {
        self.needs = CaseSetup::Bought;
        self
    }

    fn waiting(mut self) -> Self {
        self.needs = CaseSetup::Waiting;
        self
    }

    /// Adds to the request, beside the credentials.
    fn sending(
        mut self,
        more: impl Fn(&RoleFixture, &RoleCase, CallerRole, ApiRequest) -> ApiRequest
        + Send
        + Sync
        + 'static,
    ) -> Self {
        let call = self.call;
        self.call = Box::new(move |fixture, case, role| {
            more(fixture, case, role, call(fixture, case, role))
        });
        self
    }

    /// The JSON body, which may depend on the case.
    fn json(
        self,
        body: impl Fn(&RoleFixture, &RoleCase, CallerRole) -> Value + Send + Sync + 'static,
    ) -> Self {
        self.sending(move |fixture, case, role, call| call.json(&body(fixture, case, role)))
    }

    fn keyed(self) -> Self {
        self.sending(|_, _, _, call| call.key(&new_key()))
    }
}

/// The path with the ids of the case.
fn path(template: &str, case: &RoleCase) -> String {
    let id = if template.contains("/payments/") { &case.payment } else { &case.reservation };
    let path = template.split(' ').next().unwrap();
    [
        ("{id}", id.as_str()),
        ("{queue}", CONCERT),
        ("{concert}", CONCERT),
        ("{schedule}", SCHEDULE),
        ("{coupon}", "off"),
        ("{code}", "hello"),
        ("{user}", &case.user.user),
    ]
    .into_iter()
    .fold(path.to_owned(), |path, (name, value)| path.replace(name, value))
}

fn row(method: Method, template: &'static str, token: bool, answers: [&'static str; 6]) -> RoleRow {
    let called = method.clone();
    let call: RoleRequest = Box::new(move |fixture, case, role| {
        fixture.public(case, role, token, &called, &path(template, case))
    });
    RoleRow {
        method,
        template,
        note: "",
        needs: CaseSetup::Held,
        call,
        answers,
        operator_may: false,
    }
}

/// A route without identification.
fn open(template: &'static str, status: &'static str) -> RoleRow {
    row(Method::GET, template, false, [status, status, status, "", status, status])
}

const UNKNOWN: &str = "401 `unauthenticated`";
const FORBIDDEN: &str = "403 `forbidden`";
const NO_TOKEN: &str = "401 `invalid_queue_token`";
const WRONG_USER: &str = "403 `wrong_user`";
const NOT_FOUND: &str = "404 `not_found`";

/// A route about the caller's own objects: another user sees other objects.
fn own(method: Method, template: &'static str, status: &'static str) -> RoleRow {
    row(method, template, false, [UNKNOWN, status, status, "", status, UNKNOWN])
}

/// A route for active users with a queue token, about objects that all of them may see.
fn active(method: Method, template: &'static str, status: &'static str) -> RoleRow {
    row(method, template, true, [NO_TOKEN, status, status, WRONG_USER, status, UNKNOWN])
}

/// A route for the owner of the object in the path, by identity.
fn owner(method: Method, template: &'static str, status: &'static str) -> RoleRow {
    row(method, template, false, [UNKNOWN, status, NOT_FOUND, "", status, UNKNOWN])
}

/// The same, by queue token.
fn owner_by_token(method: Method, template: &'static str, status: &'static str) -> RoleRow {
    row(method, template, true, [UNKNOWN, status, NOT_FOUND, WRONG_USER, status, UNKNOWN])
        .note_is("by queue token")
}

/// A route for the booking backend, about a payment that waits.
fn service(method: Method, template: &'static str, status: &'static str) -> RoleRow {
    const FORBIDDEN: &str = "403 `forbidden`";
    row(method, template, false, [UNKNOWN, FORBIDDEN, FORBIDDEN, "", status, UNKNOWN]).waiting()
}

fn admin(method: Method, template: &'static str) -> RoleRow {
    let call = {
        let method = method.clone();
        move |fixture: &RoleFixture, case: &RoleCase, role: CallerRole| {
            // Objects to create have a new name, other objects exist.
            let path = match method {
                Method::PUT => {
                    let place = template.find('{').unwrap();
                    let own =
                        if template.contains("{user}") { &case.user.user } else { &case.name };
                    let rest = template[place..].split_once('}').unwrap().1;
                    format!("{}{own}{rest}", &template[..place])
                }
                _ => path(template, case),
            };
            fixture.admin(case, role, &method, &path)
        }
    };
    let answers = [UNKNOWN, UNKNOWN, UNKNOWN, "", UNKNOWN, "200"];
    RoleRow {
        method,
        template,
        note: "",
        needs: CaseSetup::Held,
        call: Box::new(call),
        answers,
        operator_may: false,
    }
}

pub(super) fn rows() -> Vec<RoleRow> {
    let mut rows = public();
    rows.extend(operators());
    rows.extend(beside());
    rows
}

fn public() -> Vec<RoleRow> {
    use Method as M;
    let amount = |_: &RoleFixture, _: &RoleCase, _: CallerRole| json!({"amount": 100});
    let seat = |fixture: &RoleFixture, _: &RoleCase, _: CallerRole| json!({"schedule_id": SCHEDULE, "seats": [fixture.free_seat()]});
    let pays = |_: &RoleFixture, case: &RoleCase, _: CallerRole| json!({"reservation_id": case.reservation});
    // Each pays for a different seat, and all use the user's coupon.
    let pays_with_coupon = |_: &RoleFixture, case: &RoleCase, role: CallerRole| {
        let mine = if role == CallerRole::Other { &case.others } else { &case.reservation };
        json!({"reservation_id": mine, "coupon_issue_id": case.issue})
    };
    let payment = |other| {
        row(M::POST, "/v1/payments", true, [NO_TOKEN, "201", other, WRONG_USER, "201", UNKNOWN])
            .keyed()
    };
    let confirms = |_: &RoleFixture, case: &RoleCase, _: CallerRole| json!({"provider": "toss", "reference": case.payment, "amount": 1_000});
    let refunds = |_: &RoleFixture, _: &RoleCase, _: CallerRole| json!({"reference": "refund_1", "amount": 1_000});
    let mut check = row(
        M::GET,
        "/v1/queues/{queue}/check",
        true,
        ["401 `not_admitted`", "204", "204", "", "204", "204"],
    );
    check.answers[3] = "204";
    let gate = |template| {
        let passes = ["401 `not_admitted`", "204", "204", "204", "204", "204"];
        row(M::GET, template, true, passes)
    };
    let mut charge = own(M::POST, "/v1/wallet/charges", "403 `forbidden`").keyed().json(amount);
    charge.answers[4] = "201";
    vec![
        open("/.well-known/jwks.json", "200"),
        open("/v1/queues/{queue}", "200"),
        open("/v1/queues/{queue}/draws", "200"),
        open("/v1/queues/{queue}/line", "200"),
        own(M::POST, "/v1/queues/{queue}/tokens", "200"),
        active(M::GET, "/v1/queues/{queue}/tokens/me", "200"),
        active(M::DELETE, "/v1/queues/{queue}/tokens/me", "204"),
        active(M::GET, "/v1/queues/{queue}/tokens/me/events", "200"),
        check,
        gate("/v1/queues/{queue}/gate"),
        gate("/v1/queues/{queue}/gate/{path}"),
        open("/v1/concerts", "200"),
        open("/v1/concerts/{concert}", "200"),
        active(M::GET, "/v1/concerts/{concert}/schedules", "200"),
        open("/v1/schedules/{schedule}/layout", "200"),
        active(M::GET, "/v1/schedules/{schedule}/seats", "200"),
        active(M::GET, "/v1/schedules/{schedule}/seats/events", "200"),
        active(M::POST, "/v1/reservations", "201").json(seat),
        active(M::POST, "/v1/reservations/best", "201")
            .json(|_, _, _| json!({"schedule_id": SCHEDULE, "quantity": 1})),
        own(M::GET, "/v1/reservations/mine", "200"),
        owner(M::GET, "/v1/reservations/{id}", "200"),
        owner_by_token(M::GET, "/v1/reservations/{id}", "200"),
        owner(M::DELETE, "/v1/reservations/{id}", "204"),
        owner_by_token(M::DELETE, "/v1/reservations/{id}", "204"),
        owner(M::POST, "/v1/reservations/{id}/cancel", "200").bought().keyed(),
        payment(NOT_FOUND).json(pays),
        payment("422 `coupon_not_applicable`")
            .json(pays_with_coupon)
            .note_is("with the user's coupon"),
        own(M::GET, "/v1/payments", "200"),
        owner(M::GET, "/v1/payments/{id}", "200").bought(),
        owner_by_token(M::GET, "/v1/payments/{id}", "200").bought(),
        service(M::POST, "/v1/payments/{id}/confirm", "200").json(confirms),
        owner(M::POST, "/v1/payments/{id}/void", "200").waiting(),
        owner_by_token(M::POST, "/v1/payments/{id}/void", "200").waiting(),
        service(M::POST, "/v1/payments/{id}/refunded", "422 `amount_mismatch`").json(refunds),
        own(M::GET, "/v1/wallet", "200"),
        charge,
        own(M::POST, "/v1/wallet/uses", "201").keyed().json(amount),
        own(M::GET, "/v1/wallet/entries", "200"),
        open("/v1/coupons/{coupon}", "200"),
        own(M::POST, "/v1/coupons/{coupon}/issues", "201").sending(|fixture, case, role, _| {
            fixture.public(case, role, false, &Method::POST, "/v1/coupons/fresh/issues")
        }),
        own(M::GET, "/v1/coupons/issues/mine", "200"),
        open("/v1/rewards/{code}", "200"),
        own(M::POST, "/v1/rewards/{code}/claims", "201"),
        own(M::GET, "/v1/rewards/{code}/claims/mine", "200"),
    ]
}

fn operators() -> Vec<RoleRow> {
    use Method as M;
    vec![
        admin(M::GET, "/admin/queues"),
        admin(M::GET, "/admin/queues/{queue}"),
        admin(M::PUT, "/admin/queues/{queue}").by_operator().json(|_, _, _| fast_queue_settings()),
        admin(M::PATCH, "/admin/queues/{queue}")
            .by_operator()
            .json(|_, _, _| json!({"mode": "open"})),
        admin(M::DELETE, "/admin/queues/{queue}").by_operator().answering("409 `in_use`"),
        admin(M::DELETE, "/admin/queues/{queue}/users/{user}").by_operator().answering("204"),
        admin(M::GET, "/admin/concerts"),
        admin(M::GET, "/admin/concerts/{concert}"),
        admin(M::PATCH, "/admin/concerts/{concert}").json(|_, _, _| json!({"title": "Another"})),
        admin(M::DELETE, "/admin/concerts/{concert}").answering("409 `in_use`"),
        admin(M::PUT, "/admin/concerts/{concert}").json(|_, case, _| {
            let mut night = schedule_definition(5, 1_000);
            night["id"] = json!(case.name);
            json!({"title": "Another", "schedules": [night]})
        }),
        admin(M::GET, "/admin/concerts/{concert}/reservations"),
        admin(M::GET, "/admin/reservations/{id}"),
        admin(M::DELETE, "/admin/reservations/{id}").by_operator().answering("204"),
        admin(M::POST, "/admin/reservations/{id}/cancel")
            .bought()
            .json(|_, _, _| json!({"reason": "A broken seat."})),
        admin(M::GET, "/admin/payments/{id}").bought(),
        admin(M::GET, "/admin/refunds-due"),
        admin(M::GET, "/admin/coupons"),
        admin(M::GET, "/admin/coupons/{coupon}"),
        admin(M::PATCH, "/admin/coupons/{coupon}").json(|_, _, _| json!({"title": "Another"})),
        admin(M::DELETE, "/admin/coupons/{coupon}").answering("409 `in_use`"),
        admin(M::PUT, "/admin/coupons/{coupon}").json(|_, _, _| coupon(100, 100)),
        admin(M::GET, "/admin/coupons/{coupon}/issues"),
        admin(M::GET, "/admin/rewards"),
        admin(M::GET, "/admin/rewards/{code}"),
        admin(M::PATCH, "/admin/rewards/{code}").json(|_, _, _| json!({"title": "Another"})),
        admin(M::DELETE, "/admin/rewards/{code}").answering("409 `in_use`"),
        admin(M::PUT, "/admin/rewards/{code}").json(|_, _, _| reward()),
        admin(M::GET, "/admin/rewards/{code}/claims"),
        admin(M::PUT, "/admin/users/{user}/facts")
            .by_operator()
            .json(|_, _, _| json!({"login_days": 7})),
        admin(M::PATCH, "/admin/users/{user}/facts")
            .by_operator()
            .json(|_, _, _| json!({"login_days": 7})),
        admin(M::GET, "/admin/users"),
        admin(M::GET, "/admin/users/{user}"),
        admin(M::GET, "/admin/stats"),
        admin(M::GET, "/admin/events"),
        admin(M::GET, "/admin/webhooks"),
        admin(M::GET, "/admin/webhooks/{id}").answering(NOT_FOUND),
        admin(M::DELETE, "/admin/webhooks/{id}").answering(NOT_FOUND),
        admin(M::GET, "/admin/webhooks/{id}/deliveries").answering(NOT_FOUND),
        admin(M::POST, "/admin/webhooks/{id}/rotate").answering(NOT_FOUND),
        admin(M::POST, "/admin/webhooks/{id}/replay")
            .answering(NOT_FOUND)
            .json(|_, _, _| json!({"after": "AQEBAAA"})),
        admin(M::POST, "/admin/webhooks/{id}/test").answering(NOT_FOUND),
        admin(M::PUT, "/admin/webhooks/{id}")
            .json(|_, _, _| json!({"url": "https://8.8.8.8/", "types": ["wallet.used"]})),
        admin(M::GET, "/admin/dead-letters"),
        admin(M::POST, "/admin/dead-letters/{id}/retry").by_operator().answering(NOT_FOUND),
        admin(M::POST, "/admin/schedules/{schedule}/cancel")
            .by_operator()
            .answering(NOT_FOUND)
            .sending(|fixture, case, role, _| {
                fixture.admin(case, role, &M::POST, "/admin/schedules/none/cancel")
            })
            .json(|_, _, _| json!({"reason": "The artist is ill."})),
        admin(M::GET, "/admin/jobs"),
        admin(M::GET, "/admin/jobs/{id}").answering(NOT_FOUND),
        admin(M::POST, "/admin/audit"),
        admin(M::GET, "/admin/actions"),
    ]
}

/// Routes outside the contract: pages, documents, health, metrics, and each listener's routes on
/// the other one.
fn beside() -> Vec<RoleRow> {
    use Method as M;
    let outside_contract = |template, asks_admin: bool, status: &'static str| {
        let mut row = open(template, status);
        if asks_admin {
            row.call = Box::new(move |fixture, case, role| {
                fixture.admin(case, role, &M::GET, &path(template, case))
            });
            row.note = "(admin listener)";
        }
        row
    };
    let mut rows: Vec<RoleRow> =
        ["/", "/bookings", "/docs/", "/openapi.json", "/healthz", "/readyz", "/waiting/{queue}"]
            .map(|template| outside_contract(template, false, "200"))
            .into();
    rows.push(own(M::POST, "/waiting/{queue}/place", "200"));
    rows.extend(
        ["/", "/openapi.json", "/healthz", "/readyz", "/metrics"]
            .map(|template| outside_contract(template, true, "200")),
    );
    rows.push(outside_contract("/admin/queues (public listener)", false, NOT_FOUND));
    let mut wallet = outside_contract("/v1/wallet (admin listener)", true, NOT_FOUND);
    wallet.note = "";
    rows.push(wallet);
    rows
}
