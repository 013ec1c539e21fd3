//! The listener: who may ask, how much, how long. One request for each connection.

use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use hyper::body::Incoming;
use hyper::header::HOST;
use hyper::service::service_fn;
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};

use super::Board;
use super::answer::{self, Reply, refusal};

/// Longest request line with its headers; hyper allows no less.
const HEAD_BYTES_MAX: usize = 8192;
/// Connections at a time; more wait until one ends.
const CONNECTIONS_MAX: usize = 16;
/// Of these, such that follow events: the others must stay free for monitors.
const FOLLOWERS_MAX: usize = 8;
/// A request must come, and be answered, within this time.
const PATIENCE: Duration = Duration::from_secs(5);
/// Who follows is cut off after this time and comes back, unless it is gone.
const FOLLOWED_MAX: Duration = Duration::from_secs(600);
/// After a failure to accept, which is a lack of descriptors as a rule.
const BREATH: Duration = Duration::from_millis(100);

/// Answers until the process ends.
pub(super) async fn run(listener: TcpListener, address: SocketAddr, board: Board) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let followers = Arc::new(Semaphore::new(FOLLOWERS_MAX));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        let Ok((stream, _)) = listener.accept().await else {
            sleep(BREATH).await;
            continue;
        };
        let (board, followers) = (board.clone(), Arc::clone(&followers));
        tokio::spawn(async move {
            connection(stream, address.ip(), board, followers).await;
            drop(place);
        });
    }
}

async fn connection(stream: TcpStream, ip: IpAddr, board: Board, followers: Arc<Semaphore>) {
    let follows = Arc::new(AtomicBool::new(false));
    let answering = Arc::clone(&follows);
    let service = service_fn(move |request| {
        let reply = reply(&request, ip, &board, &followers, &answering);
        async move { Ok::<_, Infallible>(reply) }
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .keep_alive(false)
        .max_buf_size(HEAD_BYTES_MAX)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    // Whoever is slow or wrong is cut off; nobody else notices.
    let over = timeout(PATIENCE, &mut connection).await.is_ok();
    if !over && follows.load(Ordering::Relaxed) {
        let _ = timeout(FOLLOWED_MAX, &mut connection).await;
    }
}

fn reply(
    request: &Request<Incoming>,
    ip: IpAddr,
    board: &Board,
    followers: &Arc<Semaphore>,
    follows: &AtomicBool,
) -> Reply {
    if request.method() != hyper::Method::GET {
        return refusal(StatusCode::METHOD_NOT_ALLOWED, "only GET: nothing can be changed here");
    }
    let header = |name: &str| request.headers().get(name).and_then(|value| value.to_str().ok());
    if !header(HOST.as_str()).is_some_and(|host| is_ours(host, ip)) {
        let why = "the Host header names neither this machine's loopback nor the listen address";
        return refusal(StatusCode::FORBIDDEN, why);
    }
    // A link that leads here is fine; a page of another site that reads from here is not.
    let navigates = header("sec-fetch-mode") == Some("navigate");
    if header("sec-fetch-site") == Some("cross-site") && !navigates {
        return refusal(StatusCode::FORBIDDEN, "not for pages of other sites");
    }
    if request.uri().path() != "/api/events" {
        return answer::answer(request.uri().path(), board);
    }
    let Ok(place) = Arc::clone(followers).try_acquire_owned() else {
        return refusal(StatusCode::SERVICE_UNAVAILABLE, "too many follow events already");
    };
    follows.store(true, Ordering::Relaxed);
    answer::follow(board, place)
}

/// A page of another site may have made its name point here (DNS rebinding): only names that
/// nobody else can own are taken, and any port, for tunnels.
fn is_ours(host: &str, listen: IpAddr) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.chars().all(|digit| digit.is_ascii_digit()) => name,
        _ => host,
    };
    if name.eq_ignore_ascii_case("localhost") {
        return true;
    }
    let bare = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
    // Who listens everywhere is called by an address that only it knows, but never by a name.
    bare.parse::<IpAddr>()
        .is_ok_and(|ip| ip.is_loopback() || ip == listen || listen.is_unspecified())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_that_nobody_else_can_own() {
        let loopback: IpAddr = [127, 0, 0, 1].into();
        for host in ["localhost", "LOCALHOST:9464", "127.0.0.1", "127.0.0.1:80", "[::1]:9464"] {
            assert!(is_ours(host, loopback), "{host}");
        }
        for host in [
            "",
            "evil.example",
            "localhost.evil.example:9464",
            "127.0.0.1.nip.io",
            "192.0.2.7:9464",
            "evil.example:localhost",
            "[::1",
            "::1]:1",
        ] {
            assert!(!is_ours(host, loopback), "{host}");
        }
        assert!(is_ours("192.0.2.7:9464", [192, 0, 2, 7].into()));
        assert!(is_ours("192.0.2.7:9464", [0, 0, 0, 0].into()));
        assert!(!is_ours("evil.example", [0, 0, 0, 0].into()));
    }
}
