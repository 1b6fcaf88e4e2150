//! `usher top`: shows the queues, sales and outbox writer of an instance in the terminal.
//!
//! All data comes from the admin listener: the metrics from `/metrics`, which needs no key, and
//! with a key the mode, limit and estimated wait of each queue from `/admin/queues`. Rates are
//! differences between two scrapes, one second apart. The screen is plain text of 80 columns.

mod format;
mod scrape;
mod screen;

use std::io::{IsTerminal, Write};
use std::time::Duration;

use axum::body::Bytes;
use axum::http::header::AUTHORIZATION;
use axum::http::{Request, StatusCode, Uri};
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use secrecy::{ExposeSecret, SecretString};
use tokio::time::{sleep, timeout};

use scrape::MetricScrape;
use screen::QueueSummary;

const SCRAPE_INTERVAL: Duration = Duration::from_secs(1);
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(5);
const MAX_RESPONSE_BYTES: usize = 64 << 20;
// Terminal control sequences.
const CURSOR_HOME: &str = "\x1b[H";
const CLEAR_BELOW: &str = "\x1b[J";
const CLEAR_LINE_END: &str = "\x1b[K\n";
const CLEAR_SCREEN_HIDE_CURSOR: &str = "\x1b[?25l\x1b[2J";
const SHOW_CURSOR: &str = "\x1b[?25h";

#[derive(Debug, Clone)]
pub struct TopSettings {
    /// The admin listener, as `http://host:port`.
    pub url: String,
    /// The admin key. Without it only metrics are shown.
    pub key: Option<SecretString>,
    /// Whether to print one screen and exit.
    pub once: bool,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(
        "{url} does not answer ({cause}): USHER_ADMIN_URL (--admin-url) must be the address of an \
         admin listener"
    )]
    NoResponse { url: String, cause: String },
    #[error(
        "{0} refuses the key: USHER_ADMIN_KEY (--admin-key) must be the admin key of the instance, \
         or be omitted"
    )]
    KeyRefused(String),
    /// The server is not an instance of Usher.
    #[error("{0} is not the admin listener of an Usher instance: {1}")]
    NotUsher(String, String),
    #[error("cannot write to standard output: {0}")]
    Output(#[from] std::io::Error),
}

/// Prints one screen, or redraws it every second until Ctrl-C. A failed scrape after the first is
/// shown and repeated.
///
/// # Errors
/// When the first scrape fails, or standard output can't be written.
pub async fn run(settings: &TopSettings) -> Result<(), Error> {
    let client = TopClient {
        settings,
        client: Client::builder(TokioExecutor::new()).build(HttpConnector::new()),
    };
    let mut previous = client.scrape().await?.0;
    sleep(SCRAPE_INTERVAL).await;
    let mut out = std::io::stdout();
    let redraw = !settings.once && out.is_terminal();
    if redraw {
        write!(out, "{CLEAR_SCREEN_HIDE_CURSOR}")?;
    }
    let outcome = loop {
        let screen = match client.scrape().await {
            Ok((current, queues)) => {
                let screen = screen::render(&settings.url, &previous, &current, queues.as_deref());
                previous = current;
                screen
            }
            Err(error) if settings.once => break Err(error),
            Err(error) => format!("{error}\n"),
        };
        if let Err(error) = draw(&mut out, &screen, redraw) {
            break Err(error.into());
        }
        if settings.once {
            break Ok(());
        }
        tokio::select! {
            _ = tokio::signal::ctrl_c() => break Ok(()),
            () = sleep(SCRAPE_INTERVAL) => {}
        }
    };
    if redraw {
        writeln!(out, "{SHOW_CURSOR}")?;
    }
    outcome
}

fn draw(out: &mut impl Write, screen: &str, redraw: bool) -> std::io::Result<()> {
    if redraw {
        write!(out, "{CURSOR_HOME}{}{CLEAR_BELOW}", screen.replace('\n', CLEAR_LINE_END))?;
    } else {
        write!(out, "{screen}")?;
    }
    out.flush()
}

struct TopClient<'a> {
    settings: &'a TopSettings,
    client: Client<HttpConnector, Empty<Bytes>>,
}

impl TopClient<'_> {
    /// Reads the metrics, and the queues if there is a key.
    async fn scrape(&self) -> Result<(MetricScrape, Option<Vec<QueueSummary>>), Error> {
        let metrics = self.get("/metrics", None).await?;
        let scrape = MetricScrape::parse(&String::from_utf8_lossy(&metrics));
        if !scrape.is_usher() {
            return Err(self.not_usher("/metrics has no usher_build_info"));
        }
        let Some(key) = &self.settings.key else { return Ok((scrape, None)) };
        let queues = self.get("/admin/queues", Some(key)).await?;
        let queues =
            QueueSummary::read_all(&queues).map_err(|error| self.not_usher(&error.to_string()))?;
        Ok((scrape, Some(queues)))
    }

    fn not_usher(&self, cause: &str) -> Error {
        Error::NotUsher(self.settings.url.clone(), cause.to_owned())
    }

    fn no_response(&self, cause: impl std::fmt::Display) -> Error {
        Error::NoResponse { url: self.settings.url.clone(), cause: cause.to_string() }
    }

    async fn get(&self, path: &str, key: Option<&SecretString>) -> Result<Bytes, Error> {
        let uri: Uri = format!("{}{path}", self.settings.url)
            .parse()
            .map_err(|error| self.no_response(error))?;
        let mut request = Request::get(uri);
        if let Some(key) = key {
            request = request.header(AUTHORIZATION, format!("Bearer {}", key.expose_secret()));
        }
        let request =
            request.body(Empty::new()).map_err(|_| Error::KeyRefused(self.settings.url.clone()))?;
        let response = timeout(RESPONSE_TIMEOUT, async {
            let response = self
                .client
                .request(request)
                .await
                .map_err(|error| self.no_response(root_cause(&error)))?;
            match response.status() {
                StatusCode::OK => {}
                StatusCode::UNAUTHORIZED => {
                    return Err(Error::KeyRefused(self.settings.url.clone()));
                }
                status => return Err(self.not_usher(&format!("{path} returns {status}"))),
            }
            let body = Limited::new(response.into_body(), MAX_RESPONSE_BYTES).collect().await;
            body.map(http_body_util::Collected::to_bytes).map_err(|error| self.no_response(error))
        });
        let late = |_| Err(self.no_response(format!("no response within {RESPONSE_TIMEOUT:?}")));
        response.await.unwrap_or_else(late)
    }
}

/// The innermost error. The errors around it only say that there was one.
fn root_cause(error: &dyn std::error::Error) -> &dyn std::error::Error {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause
}
