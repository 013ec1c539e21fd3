//! What there is to get.

use bytes::Bytes;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::Frame;
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use hyper::{Response, StatusCode};
use tokio::sync::OwnedSemaphorePermit;

use super::Board;
use super::events::Follower;
use super::{health, metrics};

/// What is sent back.
pub(super) type Reply = Response<UnsyncBoxBody<Bytes, std::convert::Infallible>>;

const TEXT: &str = "text/plain; charset=utf-8";
const JSON: &str = "application/json";

/// The files of the page: path, type, content.
const PAGE: [(&str, &str, &str); 10] = [
    ("/", "text/html; charset=utf-8", include_str!("page/index.html")),
    ("/style.css", "text/css; charset=utf-8", include_str!("page/style.css")),
    ("/app.js", "text/javascript; charset=utf-8", include_str!("page/app.js")),
    ("/chart.js", "text/javascript; charset=utf-8", include_str!("page/chart.js")),
    ("/dealings.js", "text/javascript; charset=utf-8", include_str!("page/dealings.js")),
    ("/dom.js", "text/javascript; charset=utf-8", include_str!("page/dom.js")),
    ("/format.js", "text/javascript; charset=utf-8", include_str!("page/format.js")),
    ("/graph.js", "text/javascript; charset=utf-8", include_str!("page/graph.js")),
    ("/sky.js", "text/javascript; charset=utf-8", include_str!("page/sky.js")),
    ("/icon.svg", "image/svg+xml", include_str!("page/icon.svg")),
];

/// The page takes nothing from elsewhere, sends nothing anywhere and cannot be framed.
const HEADERS: [(&str, &str); 6] = [
    (
        "content-security-policy",
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src \
         'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ),
    ("x-content-type-options", "nosniff"),
    ("referrer-policy", "no-referrer"),
    ("cross-origin-resource-policy", "same-origin"),
    ("cross-origin-opener-policy", "same-origin"),
    ("cache-control", "no-store"),
];

fn dressed(
    status: StatusCode,
    kind: &'static str,
    body: UnsyncBoxBody<Bytes, std::convert::Infallible>,
) -> Reply {
    let mut reply = Response::new(body);
    *reply.status_mut() = status;
    let headers = reply.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    for (name, value) in HEADERS {
        headers.insert(name, HeaderValue::from_static(value));
    }
    reply
}

fn whole(status: StatusCode, kind: &'static str, body: impl Into<Bytes>) -> Reply {
    dressed(status, kind, Full::new(body.into()).boxed_unsync())
}

/// No, and why.
pub(super) fn refusal(status: StatusCode, why: &str) -> Reply {
    let mut reply = whole(status, TEXT, format!("{why}\n"));
    if status == StatusCode::METHOD_NOT_ALLOWED {
        reply.headers_mut().insert(ALLOW, HeaderValue::from_static("GET"));
    }
    if status == StatusCode::SERVICE_UNAVAILABLE {
        reply.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("10"));
    }
    reply
}

/// The answer to a question that can be answered at once.
pub(super) fn answer(path: &str, board: &Board) -> Reply {
    if let Some((_, kind, text)) = PAGE.iter().find(|(name, ..)| *name == path) {
        return whole(StatusCode::OK, kind, Bytes::from_static(text.as_bytes()));
    }
    let latest = board.latest();
    let checked = |(ok, body): (bool, serde_json::Value)| {
        let status = if ok { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
        whole(status, JSON, format!("{body}\n"))
    };
    match (path, &board.0.state_dir) {
        ("/api/status", _) => whole(StatusCode::OK, JSON, format!("{}\n", latest.text)),
        ("/api/history", _) => whole(StatusCode::OK, JSON, format!("{}\n", board.history())),
        ("/livez", _) => checked(health::alive(latest.at.elapsed())),
        ("/readyz", Some(directory)) => {
            checked(health::ready(latest.at.elapsed(), &latest.status, directory))
        }
        ("/metrics", Some(_)) => {
            let families = board.families().unwrap_or_default();
            whole(StatusCode::OK, metrics::CONTENT_TYPE, metrics::render(&families))
        }
        _ => refusal(
            StatusCode::NOT_FOUND,
            "nothing here: try / /metrics /livez /readyz /api/status",
        ),
    }
}

/// Status and log lines as they come, until the place is given back.
pub(super) fn follow(board: &Board, place: OwnedSemaphorePermit) -> Reply {
    let follower = Follower::new(board);
    let stream = futures::stream::unfold((follower, place), |(mut follower, place)| async move {
        let text = follower.next().await?;
        Some((Ok(Frame::data(Bytes::from(text))), (follower, place)))
    });
    dressed(StatusCode::OK, "text/event-stream", StreamBody::new(stream).boxed_unsync())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a browser loads, in bytes, as it is sent.
    const PAGE_BYTES_MAX: usize = 150_000;

    /// A flock whose nodes have all the samples that are kept, of the longest figures.
    fn full(nodes: usize) -> Board {
        let board = Board::new(None, Box::new(|| None));
        let mut memory = board.memory();
        for second in 0..719 {
            let third = 1.0 / f64::from(3 + second);
            let figures = serde_json::json!({
                "round": 123_456_789, "age": 123_456_789.5, "loss": third,
                "cross_accuracy": third, "test_accuracy": third, "consensus": third * 1e-3,
                "accepted": 123_456_789, "rejected": 123_456_789, "failed": 123_456_789,
                "sent_bytes": 999_999_999_999_u64, "received_bytes": 999_999_999_999_u64,
            });
            for node in 0..nodes {
                let history = memory.histories.entry(format!("{node:052}")).or_default();
                history.sample(f64::from(second), &figures);
            }
        }
        drop(memory);
        board
    }

    #[test]
    fn the_page_is_light_with_full_histories_too() {
        let page: usize = PAGE.iter().map(|(.., text)| text.len()).sum();
        for nodes in [1, 5, super::super::NODES_MAX] {
            let history = full(nodes).history();
            assert_eq!(history.as_object().map(serde_json::Map::len), Some(nodes));
            let total = page + history.to_string().len();
            assert!(total <= PAGE_BYTES_MAX, "{nodes} nodes: {total} bytes, {page} of the page");
        }
    }

    #[test]
    fn the_page_names_no_other_host() {
        for (path, _, text) in PAGE {
            let foreign = text.replace("http://www.w3.org/2000/svg", "");
            assert!(!foreign.contains("://"), "{path} names another host");
            assert!(!text.contains("style=\"") && !text.contains("onclick"), "{path}: inline code");
        }
    }

    #[test]
    fn what_is_not_there_is_404_whatever_its_path() {
        let board = Board::new(None, Box::new(|| None));
        for path in ["/x", "/../etc/passwd", "//", "/api", "/metrics", "/app.js/"] {
            assert_eq!(answer(path, &board).status(), StatusCode::NOT_FOUND, "{path}");
        }
        let page = answer("/", &board);
        assert_eq!(page.status(), StatusCode::OK);
        assert_eq!(page.headers()["x-content-type-options"], "nosniff");
        assert!(!page.headers().contains_key("access-control-allow-origin"));
        let policy = page.headers()["content-security-policy"].to_str().unwrap();
        assert!(policy.starts_with("default-src 'none'") && !policy.contains("unsafe"));
    }
}
