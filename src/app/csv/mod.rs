//! Admin lists as CSV (RFC 4180), when the client asks for `text/csv`.
//!
//! The layer is around all admin routes. For a list it calls the route page by page and writes each
//! item as a line, so the whole list is streamed with one page in memory. Which routes are lists,
//! and the columns of each, follow from the OpenAPI document.

mod columns;
mod text;

use std::collections::HashMap;
use std::sync::Arc;

use axum::Router;
use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{MatchedPath, Request, State};
use axum::http::header::{ACCEPT, CONTENT_DISPOSITION, CONTENT_TYPE, VARY};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, Uri};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::Response;
use serde_json::Value;

pub(super) use columns::add_responses;

/// Items of one page.
const PAGE_LIMIT: &str = "500";
/// The largest page: 500 definitions.
const MAX_PAGE_BYTES: usize = 256 << 20;

/// The columns of each list, by the path of its route.
type ListColumns = HashMap<String, Arc<Vec<String>>>;

/// Lets the lists among the routes answer with CSV. `document` is the OpenAPI document of the
/// routes.
pub(super) fn layer_lists<S: Clone + Send + Sync + 'static>(
    router: Router<S>,
    document: &Value,
) -> Router<S> {
    let lists: Arc<ListColumns> = Arc::new(columns::of_lists(document));
    router.route_layer(from_fn_with_state(lists, answer))
}

async fn answer(State(lists): State<Arc<ListColumns>>, request: Request, next: Next) -> Response {
    let route = request.extensions().get::<MatchedPath>().map_or("", MatchedPath::as_str);
    let Some(columns) = lists.get(route).filter(|_| request.method() == Method::GET) else {
        return next.run(request).await;
    };
    if !prefers_csv(request.headers()) {
        let mut response = next.run(request).await;
        response.headers_mut().append(VARY, HeaderValue::from_static("accept"));
        return response;
    }
    let name = route.rsplit('/').next().unwrap_or("list").to_owned();
    let (columns, parts) = (columns.clone(), request.into_parts().0);
    let cursor = query_pairs(&parts.uri).into_iter().find(|(name, _)| name == "before");
    let pages = CsvPages { parts, next, columns, cursor: cursor.map(|(_, cursor)| cursor) };
    pages.into_response(&name).await
}

/// Whether the client asks for `text/csv`, and not for JSON at least as much.
fn prefers_csv(headers: &HeaderMap) -> bool {
    let accepted = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
    let ranges: Vec<&str> = accepted.flat_map(|text| text.split(',')).collect();
    let quality = |wanted: &str| {
        let mut qualities = ranges.iter().filter_map(|range| {
            let mut parts = range.split(';').map(str::trim);
            let is_wanted = parts.next()?.eq_ignore_ascii_case(wanted);
            let quality = parts.find_map(|part| part.strip_prefix("q=")?.parse::<f32>().ok());
            is_wanted.then(|| quality.unwrap_or(1.0))
        });
        qualities.next().unwrap_or(0.0)
    };
    quality("text/csv") > quality("application/json")
}

fn query_pairs(uri: &Uri) -> Vec<(String, String)> {
    form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes()).into_owned().collect()
}

/// The pages of one list that are still to be read.
struct CsvPages {
    parts: Parts,
    next: Next,
    columns: Arc<Vec<String>>,
    /// The `next` of the previous page.
    cursor: Option<String>,
}

impl CsvPages {
    async fn into_response(mut self, name: &str) -> Response {
        let (items, next) = match self.read().await {
            Ok(page) => page,
            Err(problem) => return problem,
        };
        let mut first = text::header(&self.columns);
        first.push_str(&self.lines(&items));
        self.cursor = next;
        let more = futures::stream::unfold(self, |mut pages| async move {
            pages.cursor.as_ref()?;
            // An error ends the response early, which the client notices.
            let chunk = match pages.read().await {
                Ok((items, next)) => {
                    pages.cursor = next;
                    Ok(Bytes::from(pages.lines(&items)))
                }
                Err(problem) => {
                    pages.cursor = None;
                    let status = problem.status().as_u16();
                    tracing::warn!(status, "a list as CSV was cut off");
                    Err(std::io::Error::other("a page can't be read"))
                }
            };
            Some((chunk, pages))
        });
        let first = futures::stream::iter([Ok(Bytes::from(first))]);
        let body = Body::from_stream(futures::StreamExt::chain(first, more));
        let mut response = Response::new(body);
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/csv; charset=utf-8"));
        headers.append(VARY, HeaderValue::from_static("accept"));
        let disposition = format!("attachment; filename=\"{name}.csv\"");
        if let Ok(disposition) = HeaderValue::from_str(&disposition) {
            headers.insert(CONTENT_DISPOSITION, disposition);
        }
        response
    }

    /// One page: its items and the cursor of the next page. The response of the route if it is
    /// not a page.
    async fn read(&self) -> Result<(Vec<Value>, Option<String>), Response> {
        let mut query = query_pairs(&self.parts.uri);
        query.retain(|(name, _)| name != "before");
        if query.iter().all(|(name, _)| name != "limit") {
            query.push(("limit".to_owned(), PAGE_LIMIT.to_owned()));
        }
        query.extend(self.cursor.clone().map(|cursor| ("before".to_owned(), cursor)));
        let query = form_urlencoded::Serializer::new(String::new()).extend_pairs(query).finish();
        let mut parts = self.parts.clone();
        parts.headers.remove(ACCEPT);
        let uri = format!("{}?{query}", parts.uri.path());
        parts.uri = uri.parse().unwrap_or(parts.uri);
        let response = self.next.clone().run(Request::from_parts(parts, Body::empty())).await;
        if response.status() != StatusCode::OK {
            return Err(response);
        }
        let body = to_bytes(response.into_body(), MAX_PAGE_BYTES).await;
        let mut page: Value =
            body.ok().and_then(|body| serde_json::from_slice(&body).ok()).unwrap_or_default();
        let items = match page["items"].take() {
            Value::Array(items) => items,
            _ => Vec::new(),
        };
        Ok((items, page["next"].as_str().map(str::to_owned)))
    }

    fn lines(&self, items: &[Value]) -> String {
        items.iter().map(|item| text::line(&self.columns, item)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn csv_must_be_asked_for() {
        let prefers = |accept: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(ACCEPT, accept.parse().unwrap());
            prefers_csv(&headers)
        };
        for yes in ["text/csv", "Text/CSV", "text/csv, */*", "application/json;q=0.5, text/csv"] {
            assert!(prefers(yes), "{yes}");
        }
        for no in
            ["*/*", "text/*", "application/json", "application/json, text/csv", "text/csv;q=0"]
        {
            assert!(!prefers(no), "{no}");
        }
    }
}
