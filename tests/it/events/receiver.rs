//! An endpoint that gets webhooks and misbehaves as the test wants.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

/// What the receiver does with a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Behaviour {
    Accept,
    Answer(u16),
    /// Accepts the message, but the answer never comes.
    Hang,
    /// Accepts the message, and cuts the answer off.
    CutOff,
    Redirect,
}

#[derive(Debug, Clone)]
pub(crate) struct ReceivedMessage {
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    pub(crate) behaviour: Behaviour,
}

impl ReceivedMessage {
    pub(crate) fn event(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    fn header(&self, name: &str) -> &str {
        self.headers[name].to_str().unwrap()
    }

    /// Whether one of the signatures is that of the secret `whsec_…`.
    pub(crate) fn is_signed_with(&self, secret: &str) -> bool {
        let key = STANDARD.decode(secret.strip_prefix("whsec_").unwrap()).unwrap();
        let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, &key);
        let content = self.signed_content();
        self.header("webhook-signature").split(' ').any(|signature| {
            let signature = signature.strip_prefix("v1,").unwrap();
            let signature = STANDARD.decode(signature).unwrap();
            ring::hmac::verify(&key, &content, &signature).is_ok()
        })
    }

    /// Whether the only signature is that of the public key `whpk_…`.
    pub(crate) fn is_signed_for(&self, public_key: &str) -> bool {
        let key = STANDARD.decode(public_key.strip_prefix("whpk_").unwrap()).unwrap();
        let key = ring::signature::UnparsedPublicKey::new(&ring::signature::ED25519, key);
        let signature = self.header("webhook-signature").strip_prefix("v1a,").unwrap();
        key.verify(&self.signed_content(), &STANDARD.decode(signature).unwrap()).is_ok()
    }

    fn signed_content(&self) -> Vec<u8> {
        let (id, timestamp) = (self.header("webhook-id"), self.header("webhook-timestamp"));
        assert_eq!(self.event()["id"], id);
        [format!("{id}.{timestamp}.").as_bytes(), &self.body].concat()
    }
}

type Choose = Box<dyn Fn() -> Behaviour + Send + Sync>;

struct ReceiverState {
    received: Mutex<Vec<ReceivedMessage>>,
    choose: Mutex<Choose>,
}

pub(crate) struct WebhookReceiver {
    pub(crate) url: String,
    state: Arc<ReceiverState>,
    task: tokio::task::JoinHandle<()>,
}

impl WebhookReceiver {
    pub(crate) async fn start(choose: impl Fn() -> Behaviour + Send + Sync + 'static) -> Self {
        let state = Arc::new(ReceiverState {
            received: Mutex::default(),
            choose: Mutex::new(Box::new(choose)),
        });
        let app = Router::new().fallback(receive).with_state(state.clone());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/hook", listener.local_addr().unwrap());
        let task = tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        Self { url, state, task }
    }

    pub(crate) fn behave(&self, choose: impl Fn() -> Behaviour + Send + Sync + 'static) {
        *self.state.choose.lock().unwrap() = Box::new(choose);
    }

    /// Every message, also those that were not accepted.
    pub(crate) fn received(&self) -> Vec<ReceivedMessage> {
        self.state.received.lock().unwrap().clone()
    }

    /// The events that were accepted, in order.
    pub(crate) fn accepted(&self) -> Vec<Value> {
        let accepted = |message: &ReceivedMessage| message.behaviour == Behaviour::Accept;
        self.received().iter().filter(|it| accepted(it)).map(ReceivedMessage::event).collect()
    }
}

impl Drop for WebhookReceiver {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn receive(
    State(state): State<Arc<ReceiverState>>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let behaviour = (state.choose.lock().unwrap())();
    state.received.lock().unwrap().push(ReceivedMessage { headers, body, behaviour });
    match behaviour {
        Behaviour::Accept => StatusCode::NO_CONTENT.into_response(),
        Behaviour::Answer(status) => StatusCode::from_u16(status).unwrap().into_response(),
        Behaviour::Hang => {
            tokio::time::sleep(Duration::from_secs(3_600)).await;
            StatusCode::OK.into_response()
        }
        Behaviour::CutOff => {
            // Fewer bytes than announced: the connection ends.
            ([(header::CONTENT_LENGTH, "1000")], Bytes::from_static(b"x")).into_response()
        }
        Behaviour::Redirect => {
            (StatusCode::TEMPORARY_REDIRECT, [(header::LOCATION, "/elsewhere")]).into_response()
        }
    }
}
