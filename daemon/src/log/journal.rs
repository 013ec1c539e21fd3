//! The system's journal by its native protocol: one datagram per event. Each field stands in it
//! with its length, so no text of a peer can become a field.

use std::io::{ErrorKind, IsTerminal};
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;

use serde_json::Value;
use starling_node::event::Severity;

use super::Line;

/// Where systemd-journald listens.
const SOCKET: &str = "/run/systemd/journal/socket";

/// The journal of this machine.
#[derive(Debug)]
pub(super) struct Journal {
    socket: UnixDatagram,
    path: PathBuf,
}

impl Journal {
    /// The journal, if this machine has one.
    pub(super) fn open() -> Option<Self> {
        Self::at(PathBuf::from(SOCKET)).filter(|journal| journal.path.exists())
    }

    fn at(path: PathBuf) -> Option<Self> {
        let socket = UnixDatagram::unbound().ok()?;
        // A journal that does not read must not hold the daemon up.
        socket.set_nonblocking(true).ok()?;
        Some(Self { socket, path })
    }

    /// Whether there is a journal; one that is there but does not read loses the line.
    pub(super) fn send(&self, line: &Line, node: &str) -> bool {
        let priority = match line.severity {
            Severity::Info => "6",
            Severity::Warn => "4",
            Severity::Error => "3",
        };
        let text = |key: &str| line.fields.get(key).and_then(Value::as_str);
        let seq = line.seq.map(|seq| seq.to_string());
        let fields = [
            ("MESSAGE", Some(line.json.trim_end())),
            ("PRIORITY", Some(priority)),
            ("SYSLOG_IDENTIFIER", Some("starling")),
            ("STARLING_EVENT", Some(line.name)),
            ("STARLING_NODE", Some(node).filter(|node| !node.is_empty())),
            ("STARLING_PEER", text("peer")),
            ("STARLING_REASON", text("reason")),
            ("STARLING_SEQ", seq.as_deref()),
        ];
        let mut datagram = Vec::new();
        for (name, value) in fields {
            let Some(value) = value else { continue };
            datagram.extend_from_slice(name.as_bytes());
            datagram.push(b'\n');
            datagram.extend_from_slice(&(value.len() as u64).to_le_bytes());
            datagram.extend_from_slice(value.as_bytes());
            datagram.push(b'\n');
        }
        // By path and not connected: the journal may be restarted.
        match self.socket.send_to(&datagram, &self.path) {
            Ok(_) => true,
            // Standard error leads to the same journal and would wait for it. The gap in seq tells.
            Err(error) => error.kind() == ErrorKind::WouldBlock,
        }
    }
}

/// Whether standard error leads to the journal; a child of a service may have another one.
pub(super) fn takes_stderr() -> bool {
    let stderr = std::io::stderr();
    let Some(stream) = std::env::var_os("JOURNAL_STREAM") else { return false };
    let Ok(found) = rustix::fs::fstat(&stderr) else { return false };
    !stderr.is_terminal()
        && stream.to_str() == Some(format!("{}:{}", found.st_dev, found.st_ino).as_str())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde_json::json;

    use super::*;

    /// The fields of a datagram, read as the protocol says.
    fn parsed(mut datagram: &[u8]) -> BTreeMap<String, String> {
        let mut fields = BTreeMap::new();
        while !datagram.is_empty() {
            let end = datagram.iter().position(|byte| *byte == b'\n').expect("a name");
            let (name, rest) = datagram.split_at(end);
            let (length, rest) = rest[1..].split_at(8);
            let length = u64::from_le_bytes(length.try_into().expect("eight")) as usize;
            let (value, rest) = rest.split_at(length);
            assert_eq!(rest[0], b'\n');
            datagram = &rest[1..];
            let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("UTF-8");
            assert_eq!(fields.insert(text(name), text(value)), None);
        }
        fields
    }

    fn line() -> Line {
        let fields = json!({"peer": "p", "reason": "a\nPRIORITY=0"});
        Line {
            name: "peer.denied",
            severity: Severity::Warn,
            seq: Some(7),
            json: "{\"event\":\"peer.denied\"}\n".into(),
            fields: fields.as_object().expect("an object").clone(),
        }
    }

    #[test]
    fn a_line_arrives_with_its_fields() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("socket");
        let server = UnixDatagram::bind(&path).expect("bound");
        let journal = Journal::at(path.clone()).expect("a socket");
        assert!(journal.send(&line(), "n"));
        let mut datagram = [0; 4096];
        let length = server.recv(&mut datagram).expect("a datagram");
        let fields = parsed(&datagram[..length]);
        let expected = [
            ("MESSAGE", "{\"event\":\"peer.denied\"}"),
            ("PRIORITY", "4"),
            ("STARLING_EVENT", "peer.denied"),
            ("STARLING_NODE", "n"),
            ("STARLING_PEER", "p"),
            ("STARLING_REASON", "a\nPRIORITY=0"),
            ("STARLING_SEQ", "7"),
            ("SYSLOG_IDENTIFIER", "starling"),
        ];
        let expected = expected.map(|(name, value)| (name.to_owned(), value.to_owned()));
        assert_eq!(fields, BTreeMap::from(expected));

        // Gone and back, as when it is restarted.
        drop(server);
        assert!(!journal.send(&line(), "n"));
        std::fs::remove_file(&path).expect("removed");
        assert!(!journal.send(&line(), "n"));
        let _server = UnixDatagram::bind(&path).expect("bound");
        assert!(journal.send(&line(), "n"));
    }

    #[test]
    fn a_journal_that_does_not_read_is_not_waited_for() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("socket");
        let server = UnixDatagram::bind(&path).expect("bound");
        let journal = Journal::at(path).expect("a socket");
        // None of them goes to standard error instead, which is the same journal.
        assert!((0..10_000).all(|_| journal.send(&line(), "n")));
        server.set_nonblocking(true).expect("set");
        let taken = (0..10_000).take_while(|_| server.recv(&mut [0; 4096]).is_ok()).count();
        assert!((1..10_000).contains(&taken), "{taken}");
    }
}
