//! Metrics and log lines to an OpenTelemetry collector: OTLP over HTTP, in JSON.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{CONTENT_TYPE, HOST};
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::{Map, Value, json};
use starling_node::event::Event;
use tokio::net::{TcpStream, lookup_host};
use tokio::sync::broadcast::error::RecvError;
use tokio::time::{MissedTickBehavior, interval, timeout};

use super::Board;
use super::metrics::{Family, Sample};
use crate::log;

/// Between two exports.
const PERIOD: Duration = Duration::from_secs(10);
/// A collector must take each part of one within this time.
const PATIENCE: Duration = Duration::from_secs(5);
/// Lines that wait for a collector; the oldest go first.
const LINES_MAX: usize = 1000;
/// The port of OTLP over HTTP.
const PORT: u16 = 4318;
/// Totals since the start, as OTLP numbers that.
const CUMULATIVE: u8 = 2;

/// Exports until the process ends.
pub(super) async fn run(endpoint: String, board: Board) {
    let Some((past, mut lines)) = (board.0.follow)() else { return };
    let mut waiting: VecDeque<Arc<str>> = past.into();
    let mut period = interval(PERIOD);
    // After a slow export the next one has its whole period, too.
    period.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (started, mut failing) = (nanoseconds(), false);
    // At once it would tell of a node that has not begun.
    period.tick().await;
    loop {
        tokio::select! {
            line = lines.recv() => match line {
                Ok(line) => waiting.push_back(line),
                Err(RecvError::Lagged(missed)) => count_dropped(&board, missed),
                Err(RecvError::Closed) => return,
            },
            _ = period.tick() => {
                let sent = export(&endpoint, &board, &mut waiting, started).await;
                let address = endpoint.clone();
                match (&sent, failing) {
                    (Ok(()), true) => {
                        let dropped = board.0.dropped.load(Ordering::Relaxed);
                        log::emit(&Event::ExportRecovered { address, dropped });
                    }
                    (Err(reason), false) => {
                        log::emit(&Event::ExportFailed { address, reason: reason.clone() });
                    }
                    _ => {}
                }
                failing = sent.is_err();
            }
        }
        while waiting.len() > LINES_MAX {
            waiting.pop_front();
            count_dropped(&board, 1);
        }
    }
}

fn count_dropped(board: &Board, lines: u64) {
    board.0.dropped.fetch_add(lines, Ordering::Relaxed);
}

/// Sends the metrics as they are, and the lines, which are taken off once the collector has them
/// or will never take them.
async fn export(
    endpoint: &str,
    board: &Board,
    lines: &mut VecDeque<Arc<str>>,
    started: u64,
) -> Result<(), String> {
    let host = endpoint.strip_prefix("http://").unwrap_or(endpoint);
    let has_port = host.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
    let place = if has_port { host.to_owned() } else { format!("{host}:{PORT}") };
    // Without a limit: a lookup given up goes on, and holds a thread that saving needs, too.
    let found = lookup_host(&place).await.map_err(|error| error.to_string())?;
    let places: Vec<SocketAddr> = found.collect();
    let resource = resource(&board.latest().status);
    let families = board.families().unwrap_or_default();
    let told = metrics(&families, &resource, started, nanoseconds());
    let metrics = post(&places, host, "/v1/metrics", &told).await;
    let mut failed: Vec<String> = refusal("/v1/metrics", metrics).into_iter().collect();
    if !lines.is_empty() {
        let told = logs(lines.iter().map(|line| &**line), &resource);
        let answer = post(&places, host, "/v1/logs", &told).await;
        if answer.as_ref().is_ok_and(|code| is_final(*code)) {
            count_dropped(board, lines.len() as u64);
            lines.clear();
        } else if answer.as_ref().is_ok_and(StatusCode::is_success) {
            lines.clear();
        }
        failed.extend(refusal("/v1/logs", answer));
    }
    if failed.is_empty() { Ok(()) } else { Err(failed.join("; ")) }
}

/// Whether the same request would be refused again.
fn is_final(code: StatusCode) -> bool {
    let later = [StatusCode::REQUEST_TIMEOUT, StatusCode::TOO_MANY_REQUESTS];
    code.is_client_error() && !later.contains(&code)
}

/// Why a collector did not take what was posted to a path, if it did not.
fn refusal(path: &str, answer: Result<StatusCode, String>) -> Option<String> {
    match answer {
        Ok(code) if code.is_success() => None,
        Ok(code) => Some(format!("{path}: it answered {code}")),
        Err(reason) => Some(format!("{path}: {reason}")),
    }
}

async fn post(
    places: &[SocketAddr],
    host: &str,
    path: &str,
    body: &Value,
) -> Result<StatusCode, String> {
    let sending = async {
        let stream = TcpStream::connect(places).await.map_err(|error| error.to_string())?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| error.to_string())?;
        let request = Request::builder()
            .method(Method::POST)
            .uri(path)
            .header(HOST, host)
            .header(CONTENT_TYPE, "application/json")
            .body(Full::new(Bytes::from(body.to_string())))
            .map_err(|error| error.to_string())?;
        // The answer comes only while the connection is driven, and may be its last act.
        let mut answered = std::pin::pin!(sender.send_request(request));
        let answer = tokio::select! {
            biased;
            answer = &mut answered => answer,
            _ = connection => answered.await,
        };
        answer.map(|answer| answer.status()).map_err(|error| error.to_string())
    };
    timeout(PATIENCE, sending).await.unwrap_or_else(|_| Err("it does not answer in time".into()))
}

fn nanoseconds() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

fn attribute(key: &str, value: &Value) -> Value {
    let value = match value {
        Value::Bool(truth) => json!({"boolValue": truth}),
        // OTLP writes whole numbers as text, since JSON's lose digits.
        Value::Number(number) if !number.is_f64() => json!({"intValue": number.to_string()}),
        Value::Number(number) => json!({"doubleValue": number}),
        Value::String(text) => json!({"stringValue": text}),
        other => json!({"stringValue": other.to_string()}),
    };
    json!({"key": key, "value": value})
}

fn resource(status: &Value) -> Value {
    let said = |key: &str| status.get(key).cloned().unwrap_or_default();
    json!({"attributes": [
        attribute("service.name", &"starling".into()),
        attribute("service.version", &said("version")),
        attribute("service.instance.id", &said("node")),
        attribute("starling.network", &said("network")),
    ]})
}

fn metrics(families: &[Family], resource: &Value, started: u64, now: u64) -> Value {
    let times = (started.to_string(), now.to_string());
    let known = families.iter().filter(|family| !family.samples.is_empty());
    let metrics: Vec<Value> = known.map(|family| metric(family, &times)).collect();
    let scope = json!({"scope": {"name": "starling"}, "metrics": metrics});
    json!({"resourceMetrics": [{"resource": resource, "scopeMetrics": [scope]}]})
}

fn metric(family: &Family, (started, now): &(String, String)) -> Value {
    let point = |sample: &Sample| {
        let labels = sample.labels.iter();
        let attributes: Vec<Value> =
            labels.map(|(key, text)| attribute(key, &text.as_str().into())).collect();
        json!({
            "startTimeUnixNano": started, "timeUnixNano": now, "asDouble": sample.value,
            "attributes": attributes,
        })
    };
    let (kind, mut data) = match family.kind {
        "histogram" => {
            let (bounds, counts, sum) = family.buckets();
            let point = json!({
                "startTimeUnixNano": started, "timeUnixNano": now, "sum": sum,
                "count": counts.iter().sum::<u64>().to_string(),
                "explicitBounds": bounds,
                "bucketCounts": counts.iter().map(u64::to_string).collect::<Vec<_>>(),
            });
            ("histogram", json!({"dataPoints": [point]}))
        }
        kind => {
            let points: Vec<Value> = family.samples.iter().map(point).collect();
            (if kind == "counter" { "sum" } else { "gauge" }, json!({"dataPoints": points}))
        }
    };
    if kind != "gauge" {
        data["aggregationTemporality"] = CUMULATIVE.into();
    }
    if kind == "sum" {
        data["isMonotonic"] = true.into();
    }
    let name = format!("starling_{}", family.name);
    json!({"name": name, "description": family.help, kind: data})
}

fn logs<'a>(lines: impl Iterator<Item = &'a str>, resource: &Value) -> Value {
    let records: Vec<Value> = lines.filter_map(record).collect();
    let scope = json!({"scope": {"name": "starling"}, "logRecords": records});
    json!({"resourceLogs": [{"resource": resource, "scopeLogs": [scope]}]})
}

fn record(line: &str) -> Option<Value> {
    let mut fields: Map<String, Value> = serde_json::from_str(line).ok()?;
    let mut take = |key: &str| fields.remove(key).unwrap_or_default();
    let time = take("ts").as_str().and_then(|time| humantime::parse_rfc3339(time).ok())?;
    let time = time.duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos().to_string();
    let (severity, name, said) = (take("severity"), take("event"), take("msg"));
    // The resource names the node and its network.
    let _ = (take("node"), take("network"), take("schema"));
    let number = match severity.as_str() {
        Some("ERROR") => 17,
        Some("WARN") => 13,
        _ => 9,
    };
    let attributes = fields.iter().filter(|(_, value)| !value.is_null());
    let attributes: Vec<Value> = attributes.map(|(key, value)| attribute(key, value)).collect();
    Some(json!({
        "timeUnixNano": time, "severityNumber": number, "severityText": severity,
        "eventName": name, "body": {"stringValue": said}, "attributes": attributes,
    }))
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead as _, BufReader, Read as _, Write as _};

    use super::super::metrics::{Machine, families};
    use super::*;
    use crate::log::Counts;

    #[test]
    fn metrics_keep_their_kinds_and_numbers() {
        let status = json!({
            "node": "me", "version": "1", "loss": 0.5, "accepted": 3,
            "round_times": {"bounds_s": [0.5, 1.0], "counts": [3, 2, 1], "total_s": 4.5},
        });
        let all = families(&status, &Counts::new(), &Machine::default());
        let told = metrics(&all, &resource(&status), 1, 2);
        let told = &told["resourceMetrics"][0]["scopeMetrics"][0]["metrics"];
        let find = |name: &str| {
            let mut list = told.as_array().unwrap().iter();
            list.find(|metric| metric["name"] == name).unwrap_or_else(|| panic!("{name}"))
        };
        let loss = &find("starling_train_loss")["gauge"]["dataPoints"][0];
        assert_eq!((&loss["asDouble"], &loss["timeUnixNano"]), (&json!(0.5), &json!("2")));
        let updates = &find("starling_updates_received_total")["sum"];
        assert_eq!(updates["isMonotonic"], true);
        assert_eq!(updates["aggregationTemporality"], CUMULATIVE);
        let label = json!([{"key": "result", "value": {"stringValue": "accepted"}}]);
        assert_eq!(updates["dataPoints"][0]["attributes"], label);
        assert_eq!(updates["dataPoints"][0]["asDouble"], 3.0);
        let rounds = &find("starling_round_duration_seconds")["histogram"]["dataPoints"][0];
        assert_eq!(rounds["bucketCounts"], json!(["3", "2", "1"]));
        assert_eq!(rounds["explicitBounds"], json!([0.5, 1.0]));
        assert_eq!((&rounds["count"], &rounds["sum"]), (&json!("6"), &json!(4.5)));
    }

    /// What one export said, and how many lines wait and were dropped after it.
    fn exported(metrics: &str, logs: &str) -> (Result<(), String>, usize, u64) {
        let collector = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("http://{}", collector.local_addr().unwrap());
        let answers = [metrics.to_owned(), logs.to_owned()];
        let thread = std::thread::spawn(move || {
            for answer in answers {
                let mut stream = collector.accept().unwrap().0;
                let mut reader = BufReader::new(&stream);
                let (mut line, mut length) = (String::new(), 0);
                while line != "\r\n" {
                    line.clear();
                    assert_ne!(reader.read_line(&mut line).unwrap(), 0);
                    if let Some(found) = line.strip_prefix("content-length: ") {
                        length = found.trim().parse().unwrap();
                    }
                }
                reader.read_exact(&mut vec![0; length]).unwrap();
                write!(stream, "HTTP/1.1 {answer}\r\ncontent-length: 0\r\n\r\n").unwrap();
            }
        });
        let board = Board::new(None, Box::new(|| None));
        let mut lines = VecDeque::from(["{}".into()]);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let sent = runtime.block_on(export(&endpoint, &board, &mut lines, 1));
        thread.join().unwrap();
        (sent, lines.len(), board.0.dropped.load(Ordering::Relaxed))
    }

    #[test]
    fn metrics_and_lines_are_refused_apart_and_only_what_is_hopeless_is_dropped() {
        assert_eq!(exported("200 OK", "200 OK"), (Ok(()), 0, 0));
        let (sent, waiting, dropped) = exported("503 Service Unavailable", "200 OK");
        assert_eq!(sent, Err("/v1/metrics: it answered 503 Service Unavailable".into()));
        assert_eq!((waiting, dropped), (0, 0));
        for (answer, left) in [
            ("500 Internal Server Error", (1, 0)),
            ("408 Request Timeout", (1, 0)),
            ("429 Too Many Requests", (1, 0)),
            ("400 Bad Request", (0, 1)),
            ("404 Not Found", (0, 1)),
        ] {
            let (sent, waiting, dropped) = exported("200 OK", answer);
            assert_eq!(sent, Err(format!("/v1/logs: it answered {answer}")));
            assert_eq!((waiting, dropped), left, "{answer}");
        }
    }

    #[test]
    fn a_line_becomes_a_record_and_nonsense_none() {
        let line = json!({
            "ts": "1970-01-01T00:00:01.5Z", "severity": "WARN", "event": "peer.banned",
            "node": "me", "boot": 2, "peer": "x", "share": 0.5, "none": null, "msg": "m",
        });
        let told = record(&line.to_string()).unwrap();
        assert_eq!(told["timeUnixNano"], "1500000000");
        assert_eq!(
            (&told["severityNumber"], &told["eventName"]),
            (&json!(13), &json!("peer.banned"))
        );
        let expected = json!([
            {"key": "boot", "value": {"intValue": "2"}},
            {"key": "peer", "value": {"stringValue": "x"}},
            {"key": "share", "value": {"doubleValue": 0.5}},
        ]);
        let sorted = |value: &Value| {
            let mut list = value.as_array().cloned().unwrap_or_default();
            list.sort_by_key(|entry| entry["key"].as_str().map(str::to_owned));
            list
        };
        assert_eq!(sorted(&told["attributes"]), sorted(&expected));
        assert_eq!(record("{}"), None);
        assert_eq!(record("nonsense"), None);
    }
}
