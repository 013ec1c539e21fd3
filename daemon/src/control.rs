//! The control socket: one JSON line asked, one answered. Its mode is the authorisation.

use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustix::fs::{Mode, OFlags};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::time::{sleep, timeout};

use crate::exit::{Code, Failure};

/// Longest request.
const REQUEST_MAX: u64 = 64 * 1024;
/// Longest answer: a row of a few hundred bytes for every peer that is remembered.
const ANSWER_MAX: u64 = 1024 * 1024;
/// Clients served at a time.
pub const CLIENTS_MAX: usize = 8;
/// A client must ask, and the daemon answer, within this time.
const PATIENCE: Duration = Duration::from_secs(5);
/// The same for an answer that waits for the disk.
const DISK_PATIENCE: Duration = Duration::from_secs(30);
/// After a failure to accept, which is a lack of descriptors as a rule.
const BREATH: Duration = Duration::from_millis(100);
/// Longest path of a Unix socket, by `sockaddr_un`.
const PATH_MAX: usize = 107;

/// What the daemon says: JSON, or why not.
pub type Answer = Result<Value, Failure>;

/// Who asks, as the kernel says.
#[derive(Clone, Copy, Debug)]
pub struct Caller {
    /// User.
    pub uid: u32,
    /// Process; 0 if it cannot be seen from here.
    pub pid: u32,
}

/// A question with the place for its answer.
#[derive(Debug)]
pub struct Request {
    /// One JSON object.
    pub asked: Value,
    /// Who wants to know.
    pub caller: Caller,
    /// Where the answer goes.
    pub reply: oneshot::Sender<Answer>,
}

/// The driver's end of the socket.
#[derive(Debug)]
pub struct Control {
    requests: mpsc::Receiver<Request>,
    places: Arc<Semaphore>,
}

impl Control {
    /// The next question; none if the listening task has ended. Cancel safe.
    pub async fn next(&mut self) -> Option<Request> {
        self.requests.recv().await
    }

    /// Clients being served.
    pub fn clients(&self) -> usize {
        CLIENTS_MAX - self.places.available_permits()
    }

    /// Refuses new questions and waits, not for long, until all answers are written.
    pub async fn drained(mut self) {
        const DRAIN: Duration = Duration::from_millis(500);
        self.requests.close();
        // The listener itself holds one place.
        let most = u32::try_from(CLIENTS_MAX - 1).unwrap_or(u32::MAX);
        let _ = timeout(DRAIN, self.places.acquire_many(most)).await;
    }
}

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
pub fn serve(path: &Path) -> Result<(Control, Guard), Failure> {
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
    protect(path).map_err(|error| Failure::io("protect", path, &error))?;
    let (requests, received) = mpsc::channel(CLIENTS_MAX);
    let places = Arc::new(Semaphore::new(CLIENTS_MAX));
    let control = Control { requests: received, places: Arc::clone(&places) };
    tokio::spawn(async move {
        loop {
            let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
            let Ok((stream, _)) = listener.accept().await else {
                sleep(BREATH).await;
                continue;
            };
            let requests = requests.clone();
            tokio::spawn(async move {
                // A client that is slow or wrong is cut off; nobody else notices.
                let _ = serve_client(stream, requests).await;
                drop(place);
            });
        }
    });
    Ok((control, Guard(path.to_owned())))
}

/// Opens the socket to its group. Whoever owns the folder could have put something else in its
/// place by now, which must keep its mode.
fn protect(path: &Path) -> std::io::Result<()> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let socket = std::fs::File::from(rustix::fs::open(path, flags, Mode::empty())?);
    let found = socket.metadata()?;
    if !found.file_type().is_socket() || found.nlink() != 1 {
        return Err(std::io::Error::other("something else is there by now"));
    }
    // By the descriptor; `fchmod` itself does not take one that only names a file.
    let this = format!("/proc/self/fd/{}", socket.as_raw_fd());
    std::fs::set_permissions(this, std::fs::Permissions::from_mode(0o660))
}

async fn serve_client(
    mut stream: UnixStream,
    requests: mpsc::Sender<Request>,
) -> std::io::Result<()> {
    let peer = stream.peer_cred()?;
    let pid = peer.pid().and_then(|pid| u32::try_from(pid).ok());
    let caller = Caller { uid: peer.uid(), pid: pid.unwrap_or_default() };
    let (read, mut write) = stream.split();
    let mut line = String::new();
    timeout(PATIENCE, BufReader::new(read.take(REQUEST_MAX)).read_line(&mut line)).await??;
    let answer = match serde_json::from_str(&line) {
        Err(error) => Err(Failure::new(Code::Usage, format!("not one line of JSON: {error}"))),
        Ok(asked) => {
            let patience = patience(&asked);
            answered_within(patience, asked, caller, &requests).await
        }
    };
    let answer = answer.unwrap_or_else(
        |failure| json!({"error": failure.message, "exit_code": failure.code as u8}),
    );
    timeout(PATIENCE, write.write_all(format!("{answer}\n").as_bytes())).await?
}

/// The driver's answer, or why there is none yet.
async fn answered_within(
    patience: Duration,
    asked: Value,
    caller: Caller,
    requests: &mpsc::Sender<Request>,
) -> Answer {
    let (reply, answered) = oneshot::channel();
    let asking = async {
        // The driver drops requests only when it ends.
        let _ = requests.send(Request { asked, caller, reply }).await;
        let stopping = || Err(Failure::new(Code::Unavailable, "the daemon is stopping"));
        answered.await.unwrap_or_else(|_| stopping())
    };
    timeout(patience, asking).await.unwrap_or_else(|_| {
        let message = format!(
            "no answer within {} s: the disk is slow, the checkpoint or what else was asked for \
             may still come; see the log",
            patience.as_secs()
        );
        Err(Failure::new(Code::Temporary, message))
    })
}

/// How long a request may take to be answered.
fn patience(request: &Value) -> Duration {
    match request.get("command").and_then(Value::as_str) {
        Some("checkpoint" | "leave" | "ban" | "unban") => DISK_PATIENCE,
        _ => PATIENCE,
    }
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
        BufReader::new(stream.take(ANSWER_MAX)).read_line(&mut line).await?;
        Ok::<_, std::io::Error>(line)
    };
    // The daemon gives up first and says why, unless others hold all its places.
    let line = match timeout(patience(request) + PATIENCE, asking).await {
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
        Some(error) => {
            let code = answer.get("exit_code").and_then(Value::as_u64);
            let code = code.and_then(Code::from_number).unwrap_or(Code::Usage);
            Err(Failure::new(code, error))
        }
        None => Ok(answer),
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "tests plant files on purpose")]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_gets_no_answer_in_time_is_told_that_it_may_still_come() {
        let (requests, mut received) = mpsc::channel(1);
        let caller = Caller { uid: 0, pid: 0 };
        let asked = json!({"command": "checkpoint"});
        assert_eq!(patience(&asked), DISK_PATIENCE);
        let asking = answered_within(Duration::ZERO, asked, caller, &requests);
        let failure = asking.await.expect_err("no answer");
        assert_eq!(failure.code, Code::Temporary);
        assert!(failure.message.starts_with("no answer within 0 s: the disk is slow"), "{failure}");
        assert!(received.try_recv().is_ok(), "it was asked all the same");
    }

    #[test]
    fn only_a_socket_is_opened_to_the_group() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let (file, link) = (folder.path().join("file"), folder.path().join("link"));
        let socket = folder.path().join("socket");
        let mode = |path: &Path| std::fs::metadata(path).expect("there").mode() & 0o777;
        std::fs::write(&file, "").expect("written");
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).expect("set");
        std::os::unix::fs::symlink(&file, &link).expect("linked");
        protect(&link).expect_err("a link");
        protect(&file).expect_err("a file");
        assert_eq!(mode(&file), 0o600);
        let _listener = std::os::unix::net::UnixListener::bind(&socket).expect("bound");
        protect(&socket).expect("a socket");
        assert_eq!(mode(&socket), 0o660);
    }
}
