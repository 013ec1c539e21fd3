//! Questions and orders that come over the control socket.

use serde_json::{Value, json};
use starling_node::event::Event;
use starling_node::node::{Disclosed, Input, Sent};
use starling_protocol::id::NodeId;

use super::{Running, unix_now};
use crate::control::{Answer, CLIENTS_MAX, Request};
use crate::exit::{Code, Failure};
use crate::log;
use crate::store::fill_random;

/// Longest time that a ticket may be valid: a year.
const TICKET_SECONDS_MAX: u64 = 366 * 86_400;
/// Most uses of a ticket.
const TICKET_USES_MAX: u32 = 10_000;

/// A node id is named by this many of its last characters at least: fewer are soon another's, too.
const SUFFIX_MIN: usize = 6;

/// Commands that only look.
const LOOKS: [&str; 4] = ["status", "peers", "limits", "privacy"];
/// Commands that change something: who asked for one is in the log.
const CHANGES: [&str; 8] =
    ["invite", "ban", "unban", "checkpoint", "pause", "resume", "leave", "reload"];

pub(super) fn usage(message: impl Into<String>) -> Failure {
    Failure::new(Code::Usage, message)
}

impl Running {
    /// Answers one request; what cannot be helped is an error.
    pub(super) fn asked(&mut self, request: Request) -> Result<(), Failure> {
        let Request { asked, caller, reply } = request;
        let command = asked.get("command").and_then(Value::as_str).unwrap_or_default();
        if CHANGES.contains(&command) {
            let (uid, pid) = (caller.uid, caller.pid);
            log::emit(&Event::ControlRequested { command: command.to_owned(), uid, pid });
        }
        let answer = match command {
            "status" => Ok(self.status()),
            "peers" => Ok(self.peers()),
            "limits" => Ok(json!({"limits": self.limits()})),
            "privacy" => Ok(self.privacy()),
            "invite" => self.invite(&asked),
            "reload" => self.reload()?,
            "ban" | "unban" => {
                self.order_ban(command == "ban", &asked, reply);
                return Ok(());
            }
            "pause" | "resume" => {
                let input = if command == "pause" { Input::Pause } else { Input::Resume };
                self.step(input)?;
                Ok(json!({"paused": self.driver.node.is_paused()}))
            }
            "checkpoint" => {
                self.saver.wait(reply);
                return self.step(Input::Save);
            }
            "leave" => {
                self.saver.wait(reply);
                return self.leave("operator");
            }
            _ => {
                let known = [&LOOKS[..], &CHANGES[..]].concat().join(", ");
                Err(usage(format!("unknown command: expected one of {known}")))
            }
        };
        // A client that went away needs no answer.
        let _ = reply.send(answer);
        Ok(())
    }

    fn invite(&self, request: &Value) -> Answer {
        let number = |name: &str| request.get(name).and_then(Value::as_u64).unwrap_or_default();
        let uses = u32::try_from(number("uses")).ok().filter(|n| (1..=TICKET_USES_MAX).contains(n));
        let uses = uses.ok_or_else(|| usage(format!("--uses: expected 1 to {TICKET_USES_MAX}")))?;
        let seconds = number("seconds");
        if !(1..=TICKET_SECONDS_MAX).contains(&seconds) {
            return Err(usage("--expires: expected one second to 366 days"));
        }
        if self.addresses.is_empty() {
            return Err(usage("this node listens nowhere: set network.listen"));
        }
        let mut nonce = [0; 16];
        fill_random(&mut nonce)?;
        let not_after = unix_now().saturating_add(seconds);
        let ticket = self.driver.node.invite(uses, not_after, nonce, self.addresses.clone());
        let ticket = ticket.map_err(|error| usage(error.to_string()))?;
        Ok(json!({"ticket": ticket, "uses": uses, "not_after": not_after}))
    }

    fn peers(&self) -> Value {
        let node = &self.driver.node;
        let sent = &node.disclosed().peers;
        let rows = node.peer_table(self.now()).into_iter().map(|row| {
            let sent = sent.get(&row.id).copied().unwrap_or_default();
            json!({
                "id": row.id.to_string(),
                "address": row.address,
                "linked": row.linked,
                "drawn": row.drawn,
                "age": row.age,
                "round": row.round,
                "failures": row.failures,
                "trusted": row.trusted,
                "quarantined": row.quarantined,
                "banned": row.banned,
                "models_sent": sent.models,
                "model_bytes_sent": sent.model_bytes,
            })
        });
        json!({"peers": rows.collect::<Vec<_>>()})
    }

    /// Every table and queue that has a bound, how full it is, and the bound.
    pub(super) fn limits(&self) -> Value {
        let driver = &self.driver;
        let (held, most) = driver.compute.reference_bytes();
        let (kept, kept_max) = log::kept();
        let own = [
            ("pair_reference_bytes", held, most),
            ("control_clients", driver.control.clients(), CLIENTS_MAX),
            ("log_lines_kept", kept, kept_max),
        ];
        let all = driver.node.limits().into_iter().chain(driver.net.limits()).chain(own);
        all.map(|(name, used, max)| json!({"name": name, "used": used, "max": max})).collect()
    }

    fn privacy(&self) -> Value {
        let Disclosed { peers, others } = self.driver.node.disclosed();
        let row = |peer: &str, sent: &Sent| {
            let Sent { models, model_bytes, bytes } = sent;
            json!({"peer": peer, "models": models, "model_bytes": model_bytes, "bytes": bytes})
        };
        let mut recipients: Vec<Value> =
            peers.iter().map(|(peer, sent)| row(&peer.to_string(), sent)).collect();
        if *others != Sent::default() {
            recipients.push(row("others", others));
        }
        let all = || peers.values().chain([others]);
        json!({
            "leaves": [
                "models: all parameters, as trained on this node's rows",
                "for a partner's model, how many of some hold-out rows it got right",
                "node id, addresses, age, round, pace, known peers",
            ],
            "stays": ["rows and labels", "the key"],
            "rows_here": self.driver.rows,
            "models_sent": all().map(|sent| sent.models).sum::<u64>(),
            "model_bytes_sent": all().map(|sent| sent.model_bytes).sum::<u64>(),
            "bytes_sent": all().map(|sent| sent.bytes).sum::<u64>(),
            "recipients": recipients,
            "differential_privacy": false,
            // No bound holds: JSON has no infinity.
            "epsilon": Value::Null,
        })
    }
}

/// The peer of a request: by its whole id, known or not, or by the end of one of `known`.
pub(super) fn named_peer(known: &[NodeId], request: &Value) -> Result<NodeId, Failure> {
    let text = request.get("peer").and_then(Value::as_str).unwrap_or_default();
    if let Ok(id) = text.parse() {
        return Ok(id);
    }
    let fits = |id: &&NodeId| text.len() >= SUFFIX_MIN && id.to_string().ends_with(text);
    let found: Vec<NodeId> = known.iter().filter(fits).copied().collect();
    match found.as_slice() {
        [peer] => Ok(*peer),
        [] => Err(usage(format!(
            "no peer by the name of {text:?}: expected a node id, or at least {SUFFIX_MIN} \
             characters of the end of one that `starling peers` lists"
        ))),
        several => {
            let count = several.len();
            Err(usage(format!("{count} node ids end in {text:?}: give more of the one you mean")))
        }
    }
}

#[cfg(test)]
mod tests {
    use starling_protocol::id::Keypair;

    use super::*;

    #[test]
    fn a_peer_is_named_by_its_id_or_the_end_of_it() {
        let id = |seed: u8| Keypair::from_seed(&[seed; 32]).id();
        let known: Vec<NodeId> = (1..=3).map(id).collect();
        let named = |text: &str| named_peer(&known, &json!({"peer": text}));
        let short = known[1].short();
        assert_eq!(named(&short), Ok(known[1]));
        assert_eq!(named(&short[short.len() - 6..]), Ok(known[1]));
        assert_eq!(named(&short[short.len() - 5..]).expect_err("short").code, Code::Usage);
        let stranger = id(9);
        assert_eq!(named(&stranger.to_string()), Ok(stranger));
        for wrong in ["", "nobody", "1", &stranger.short()] {
            assert_eq!(named(wrong).expect_err(wrong).code, Code::Usage);
        }
        let request = json!({"peer": known[0].short()});
        let failure = named_peer(&[known[0]; 2], &request).expect_err("two");
        assert!(failure.message.starts_with("2 node ids end in"), "{failure}");
    }
}
