//! `usher top`: an instance's queues, sales and writer in a terminal, for those without Grafana.
//!
//! Everything comes from the admin listener: the figures from `/metrics`, which needs no key, and what only settings say (a line's mode, its bound, its
//! estimate) from `/admin/queues`, where there is a key. Rates are differences between two looks, a second apart. Plain text on 80 columns, redrawn in place.

mod figures;
mod scrape;
mod view;

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
use view::QueueSummary;

/// Between two looks.
const EVERY: Duration = Duration::from_secs(1);
/// The longest that one answer may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// The longest answer, in bytes.
const LONGEST: usize = 64 << 20;
/// To the upper left, and everything below away; each line clears its own rest.
const HOME: &str = "\x1b[H";
const BELOW: &str = "\x1b[J";
const REST: &str = "\x1b[K\n";

/// What `usher top` looks at.
#[derive(Debug, Clone)]
pub struct TopSettings {
    /// Where an admin listener is, as `http://host:port`.
    pub url: String,
    /// Its key; without one the figures alone are shown.
    pub key: Option<SecretString>,
    /// One screen, then the end.
    pub once: bool,
}

/// Why there is nothing to look at.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nobody answers there.
    #[error(
        "{url} does not answer ({why}): USHER_ADMIN_URL (--admin-url) must be where an admin listener is"
    )]
    Silent {
        /// Where.
        url: String,
        /// What the connection said.
        why: String,
    },
    /// The key is not the instance's.
    #[error(
        "{0} refuses the key: USHER_ADMIN_KEY (--admin-key) must be the instance's own, or be left out"
    )]
    Refused(String),
    /// Something answers that is no instance.
    #[error("{0} answers, but not as the admin listener of an instance of Usher: {1}")]
    Stranger(String, String),
    /// Standard output can't be written.
    #[error("standard output: {0}")]
    Output(#[from] std::io::Error),
}

/// Looks once, or every second until Ctrl-C. Later looks that fail are shown and tried again.
///
/// # Errors
/// When the first look fails, or nothing can be written.
pub async fn run(settings: &TopSettings) -> Result<(), Error> {
    let looker = TopClient {
        settings,
        client: Client::builder(TokioExecutor::new()).build(HttpConnector::new()),
    };
    let mut before = looker.look().await?.0;
    sleep(EVERY).await;
    let mut out = std::io::stdout();
    let redraw = !settings.once && out.is_terminal();
    if redraw {
        // The cursor away, and a screen to draw on.
        write!(out, "\x1b[?25l\x1b[2J")?;
    }
    let outcome = loop {
        let screen = match looker.look().await {
            Ok((now, lines)) => {
                let screen = view::screen(&settings.url, &before, &now, lines.as_deref());
                before = now;
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
            () = sleep(EVERY) => {}
        }
    };
    if redraw {
        writeln!(out, "\x1b[?25h")?;
    }
    outcome
}

fn draw(out: &mut impl Write, screen: &str, redraw: bool) -> std::io::Result<()> {
    if redraw {
        write!(out, "{HOME}{}{BELOW}", screen.replace('\n', REST))?;
    } else {
        write!(out, "{screen}")?;
    }
    out.flush()
}

/// Asks one admin listener.
struct TopClient<'a> {
    settings: &'a TopSettings,
    client: Client<HttpConnector, Empty<Bytes>>,
}

impl TopClient<'_> {
    /// The figures, and with a key the lines.
    async fn look(&self) -> Result<(MetricScrape, Option<Vec<QueueSummary>>), Error> {
        let figures = self.get("/metrics", None).await?;
        let scrape = MetricScrape::read(&String::from_utf8_lossy(&figures));
        if !scrape.is_usher() {
            return Err(self.stranger("/metrics names no version of it"));
        }
        let Some(key) = &self.settings.key else { return Ok((scrape, None)) };
        let queues = self.get("/admin/queues", Some(key)).await?;
        let lines =
            QueueSummary::read_all(&queues).map_err(|error| self.stranger(&error.to_string()))?;
        Ok((scrape, Some(lines)))
    }

    fn stranger(&self, why: &str) -> Error {
        Error::Stranger(self.settings.url.clone(), why.to_owned())
    }

    fn silent(&self, why: impl std::fmt::Display) -> Error {
        Error::Silent { url: self.settings.url.clone(), why: why.to_string() }
    }

    async fn get(&self, path: &str, key: Option<&SecretString>) -> Result<Bytes, Error> {
        let uri: Uri =
            format!("{}{path}", self.settings.url).parse().map_err(|error| self.silent(error))?;
        let mut request = Request::get(uri);
        if let Some(key) = key {
            request = request.header(AUTHORIZATION, format!("Bearer {}", key.expose_secret()));
        }
        let request =
            request.body(Empty::new()).map_err(|_| Error::Refused(self.settings.url.clone()))?;
        let answer = timeout(PATIENCE, async {
            let answer =
                self.client.request(request).await.map_err(|error| self.silent(deepest(&error)))?;
            match answer.status() {
                StatusCode::OK => {}
                StatusCode::UNAUTHORIZED => return Err(Error::Refused(self.settings.url.clone())),
                status => return Err(self.stranger(&format!("{path} says {status}"))),
            }
            let body = Limited::new(answer.into_body(), LONGEST).collect().await;
            body.map(http_body_util::Collected::to_bytes).map_err(|error| self.silent(error))
        });
        answer.await.unwrap_or_else(|_| Err(self.silent(format!("nothing within {PATIENCE:?}"))))
    }
}

/// What an error is made of in the end: the layers above it only say that there was one.
fn deepest(error: &dyn std::error::Error) -> &dyn std::error::Error {
    let mut deepest = error;
    while let Some(source) = deepest.source() {
        deepest = source;
    }
    deepest
}
