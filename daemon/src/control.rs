//! The control socket: one JSON line asked, one answered. Its mode is the authorisation.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::time::timeout;

use crate::exit::{Code, Failure};

/// Longest request and answer.
const LINE_MAX: u64 = 64 * 1024;
/// Clients served at a time.
const CLIENTS_MAX: usize = 8;
/// A client must ask, and the daemon answer, within this time.
const PATIENCE: Duration = Duration::from_secs(5);
/// Longest path of a Unix socket, by `sockaddr_un`.
const PATH_MAX: usize = 107;

/// A question with the place for its answer.
pub type Request = (Value, oneshot::Sender<Value>);

/// Removes the socket when the daemon ends.
#[derive(Debug)]
pub struct Guard(PathBuf);

impl Drop for Guard {
    fn drop(&mut self) {
        // A socket left behind is replaced at the next start.
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Listens at `path`. The caller holds the state directory's lock, so a socket found there is
/// stale.
pub fn serve(path: &Path) -> Result<(mpsc::Receiver<Request>, Guard), Failure> {
    if path.as_os_str().len() > PATH_MAX {
        let message = format!(
            "the control socket's path {} is longer than {PATH_MAX} bytes: use a shorter \
             --state-dir",
            path.display()
        );
        return Err(Failure::new(Code::Config, message));
    }
    let _ = std::fs::remove_file(path);
    let listener =
        UnixListener::bind(path).map_err(|error| Failure::io("listen at", path, &error))?;
    let mode = std::fs::Permissions::from_mode(0o660);
    std::fs::set_permissions(path, mode).map_err(|error| Failure::io("protect", path, &error))?;
    let (requests, received) = mpsc::channel(CLIENTS_MAX);
    let places = Arc::new(Semaphore::new(CLIENTS_MAX));
    tokio::spawn(async move {
        loop {
            let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
            let Ok((stream, _)) = listener.accept().await else { return };
            let requests = requests.clone();
            tokio::spawn(async move {
                // A client that is slow or wrong is cut off; nobody else notices.
                let _ = timeout(PATIENCE, answer(stream, requests)).await;
                drop(place);
            });
        }
    });
    Ok((received, Guard(path.to_owned())))
}

async fn answer(mut stream: UnixStream, requests: mpsc::Sender<Request>) -> std::io::Result<()> {
    let (read, mut write) = stream.split();
    let mut line = String::new();
    BufReader::new(read.take(LINE_MAX)).read_line(&mut line).await?;
    let value = match serde_json::from_str(&line) {
        Err(error) => json!({"error": format!("not one line of JSON: {error}")}),
        Ok(request) => {
            let (reply, answered) = oneshot::channel();
            // The driver drops requests only when it ends.
            let _ = requests.send((request, reply)).await;
            answered.await.unwrap_or_else(|_| json!({"error": "the daemon is stopping"}))
        }
    };
    write.write_all(format!("{value}\n").as_bytes()).await
}

/// Asks the daemon that runs on a state directory.
pub async fn ask(path: &Path, request: &Value) -> Result<Value, Failure> {
    let unreachable = |reason: String| {
        let directory = path.parent().unwrap_or(path).display();
        let message = format!(
            "no daemon answers on {directory} ({reason}): start it with `starling run --state-dir \
             {directory}`"
        );
        Failure::new(Code::Unavailable, message)
    };
    let asking = async {
        let mut stream = UnixStream::connect(path).await?;
        stream.write_all(format!("{request}\n").as_bytes()).await?;
        let mut line = String::new();
        BufReader::new(stream.take(LINE_MAX)).read_line(&mut line).await?;
        Ok::<_, std::io::Error>(line)
    };
    let line = match timeout(PATIENCE, asking).await {
        Err(_) => return Err(unreachable("it does not answer in time".into())),
        Ok(Err(error)) if error.kind() == std::io::ErrorKind::PermissionDenied => {
            return Err(Failure::io("use", path, &error));
        }
        Ok(Err(error)) => return Err(unreachable(error.to_string())),
        Ok(Ok(line)) => line,
    };
    let answer: Value =
        serde_json::from_str(&line).map_err(|_| unreachable("it closed the socket".into()))?;
    match answer.get("error").and_then(Value::as_str) {
        Some(error) => Err(Failure::new(Code::Usage, error)),
        None => Ok(answer),
    }
}
