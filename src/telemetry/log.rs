//! The log, as text or JSON on standard error. Standard output belongs to the output of commands.
//!
//! A line that is written during a request contains the request. A `tracing` span would format its
//! fields for every request, although few requests write a line; that took 6 % of the time of an
//! instance. So the request is a task local, and is formatted with the line.

use std::fmt;
use std::io::IsTerminal;

use axum::http::{HeaderValue, Method, Uri};
use serde_json::json;
use tracing::{Event, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::field::RecordFields;
use tracing_subscriber::filter::ParseError;
use tracing_subscriber::fmt::format::{DefaultFields, Json, JsonFields, Writer};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

tokio::task_local! { static CURRENT_REQUEST: LoggedRequest; }

/// The request of a log line. It has no `Debug`, because the query of its URI may contain a queue
/// token.
#[derive(Clone)]
pub struct LoggedRequest {
    pub id: HeaderValue,
    /// The trace id that the caller sent. `None`: the log uses `id`.
    pub trace_id: Option<HeaderValue>,
    pub method: Method,
    /// Only the path is logged.
    pub uri: Uri,
}

impl LoggedRequest {
    fn fields(&self) -> [(&'static str, &str); 4] {
        fn text(id: &HeaderValue) -> &str {
            id.to_str().unwrap_or_default()
        }
        [
            ("id", text(&self.id)),
            ("trace_id", text(self.trace_id.as_ref().unwrap_or(&self.id))),
            ("method", self.method.as_str()),
            ("path", self.uri.path()),
        ]
    }
}

/// Adds the request to all lines that `future` writes, also when it is dropped.
pub fn with_request<F: Future>(
    request: LoggedRequest,
    future: F,
) -> impl Future<Output = F::Output> {
    CURRENT_REQUEST.scope(request, future)
}

/// The format of the log (`USHER_LOG`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LogFormat {
    #[default]
    Text,
    /// One object per line.
    Json,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("RUST_LOG: {0}")]
    Filter(#[from] ParseError),
}

/// Starts the log of the process. `levels` is the value of `RUST_LOG`; the default is `info`. A
/// second call changes nothing.
///
/// # Errors
/// When `levels` is invalid.
pub fn init(format: LogFormat, levels: Option<&str>) -> Result<(), Error> {
    let levels = levels.filter(|levels| !levels.trim().is_empty()).unwrap_or("info");
    let lines = tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::builder().parse(levels)?)
        .with_ansi(std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none())
        .with_writer(std::io::stderr);
    // An error means that a subscriber is already installed: the first one wins.
    let _first_wins = match format {
        LogFormat::Text => lines.fmt_fields(TextFormat(DefaultFields::new())).try_init(),
        LogFormat::Json => {
            lines.fmt_fields(JsonFields::new()).event_format(json_format()).try_init()
        }
    };
    Ok(())
}

fn json_format() -> JsonFormat {
    JsonFormat(tracing_subscriber::fmt::format().json().flatten_event(true))
}

/// Formats the fields of an event, followed by those of the request.
struct TextFormat(DefaultFields);

impl<'writer> FormatFields<'writer> for TextFormat {
    fn format_fields<R: RecordFields>(
        &self,
        mut writer: Writer<'writer>,
        fields: R,
    ) -> fmt::Result {
        self.0.format_fields(writer.by_ref(), fields)?;
        // Outside of a request nothing is added.
        let written = CURRENT_REQUEST.try_with(|request| {
            request.fields().iter().try_for_each(|(name, value)| write!(writer, " {name}={value}"))
        });
        written.unwrap_or(Ok(()))
    }
}

/// Formats an event as an object with the request as its last member.
struct JsonFormat(tracing_subscriber::fmt::format::Format<Json>);

impl<S, N> FormatEvent<S, N> for JsonFormat
where
    S: Subscriber + for<'lookup> LookupSpan<'lookup>,
    N: for<'writer> FormatFields<'writer> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let Ok(request) = CURRENT_REQUEST.try_with(LoggedRequest::clone) else {
            return self.0.format_event(context, writer, event);
        };
        let mut line = String::new();
        self.0.format_event(context, Writer::new(&mut line), event)?;
        let fields: serde_json::Map<_, _> = request
            .fields()
            .map(|(name, value)| (name.to_owned(), json!(value)))
            .into_iter()
            .collect();
        match line.trim_end().strip_suffix('}') {
            Some(open) => writeln!(writer, "{open},\"request\":{}}}", json!(fields)),
            None => writer.write_str(&line),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io;
    use std::sync::{Arc, Mutex};

    #[derive(Clone, Default)]
    struct FieldWriter(Arc<Mutex<Vec<u8>>>);

    impl io::Write for FieldWriter {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl FieldWriter {
        fn text(&self) -> String {
            String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
        }
    }

    fn request() -> LoggedRequest {
        LoggedRequest {
            id: HeaderValue::from_static("of-the-gateway"),
            trace_id: None,
            method: Method::GET,
            uri: "/v1/queues/\"?token=secret".parse().unwrap(),
        }
    }

    #[tokio::test]
    async fn text_line_contains_its_request() {
        let written = FieldWriter::default();
        let writer = written.clone();
        let lines = tracing_subscriber::fmt()
            .with_ansi(false)
            .without_time()
            .with_writer(move || writer.clone());
        let text = lines.fmt_fields(TextFormat(DefaultFields::new())).finish();
        {
            let _mine = tracing::subscriber::set_default(text);
            with_request(request(), async { tracing::info!(seats = 2, "held") }).await;
            tracing::info!("between");
        }
        let target = module_path!();
        let of = "id=of-the-gateway trace_id=of-the-gateway method=GET path=/v1/queues/\"";
        assert_eq!(
            written.text(),
            format!(" INFO {target}: held seats=2 {of}\n INFO {target}: between\n")
        );
    }

    #[tokio::test]
    async fn json_line_contains_its_request() {
        let written = FieldWriter::default();
        let writer = written.clone();
        let lines = tracing_subscriber::fmt().with_writer(move || writer.clone());
        let lines = lines.fmt_fields(JsonFields::new()).event_format(json_format());
        {
            let _mine = tracing::subscriber::set_default(lines.finish());
            with_request(request(), async { tracing::info!(seats = 2, "held") }).await;
            tracing::info!("between");
        }
        let lines: Vec<serde_json::Value> =
            written.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let id = "of-the-gateway";
        let request = json!({"id": id, "trace_id": id, "method": "GET", "path": "/v1/queues/\""});
        assert_eq!((&lines[0]["seats"], &lines[0]["request"]), (&json!(2), &request));
        assert_eq!((&lines[1]["message"], lines[1].get("request")), (&json!("between"), None));
    }

    #[test]
    fn invalid_filter_is_an_error_with_the_name_of_the_setting() {
        let error = init(LogFormat::Text, Some("usher=loud")).unwrap_err();
        assert!(error.to_string().starts_with("RUST_LOG: "), "{error}");
    }

    #[test]
    fn starting_twice_is_harmless() {
        init(LogFormat::Json, None).unwrap();
        init(LogFormat::Text, Some(" ")).unwrap();
    }
}
