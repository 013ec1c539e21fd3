//! Bans of the operator on their way to the disk: they hold once they are there.

use std::sync::Arc;

use serde_json::{Value, json};
use starling_node::node::Input;
use starling_protocol::id::NodeId;
use starling_protocol::limits::BANS_MAX;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::Running;
use super::asked::{named_peer, usage};
use crate::control::Answer;
use crate::exit::{Code, Failure};
use crate::setup;

/// One peer to be banned or not, and who waits for that.
struct Change {
    peer: NodeId,
    banned: bool,
    reply: oneshot::Sender<Answer>,
}

/// One change at a time; who wants another meanwhile is told to try again.
#[derive(Default)]
pub(super) struct Bans {
    under_way: Option<(Change, JoinHandle<Result<(), Failure>>)>,
}

impl Bans {
    /// The end of the change under way; never, if there is none. Cancel safe.
    pub(super) async fn written(&mut self) -> Result<(), Failure> {
        let Some((_, task)) = &mut self.under_way else { return std::future::pending().await };
        task.await.unwrap_or_else(|error| {
            Err(Failure::new(Code::Internal, format!("writing ended badly: {error}")))
        })
    }
}

impl Running {
    /// Bans a peer, or no longer, and answers `reply` once that is on disk.
    pub(super) fn order_ban(
        &mut self,
        banned: bool,
        request: &Value,
        reply: oneshot::Sender<Answer>,
    ) {
        let peer = match self.peer_to_change(banned, request) {
            Ok(peer) => peer,
            Err(failure) => {
                // A client that went away needs no answer.
                let _ = reply.send(Err(failure));
                return;
            }
        };
        let others = self.driver.node.operator_bans().filter(|known| *known != peer);
        let all: Vec<NodeId> = others.chain(banned.then_some(peer)).collect();
        let store = Arc::clone(&self.driver.store);
        let write = move || setup::write_bans(&store, all.into_iter());
        let task = tokio::task::spawn_blocking(write);
        self.bans.under_way = Some((Change { peer, banned, reply }, task));
    }

    fn peer_to_change(&self, banned: bool, request: &Value) -> Result<NodeId, Failure> {
        if self.bans.under_way.is_some() {
            let message = "another ban is on its way to the disk: try again later";
            return Err(Failure::new(Code::Temporary, message));
        }
        let node = &self.driver.node;
        let peers = node.peer_table(self.now());
        let eligible = peers.iter().filter(|peer| banned || peer.banned);
        let eligible: Vec<NodeId> = eligible.map(|peer| peer.id).collect();
        let peer = named_peer(&eligible, request)?;
        if banned && peer == node.id() {
            return Err(usage("that is this node itself"));
        }
        if banned && node.operator_bans().count() >= BANS_MAX {
            return Err(usage(format!("{BANS_MAX} are banned already: unban some")));
        }
        if !banned && !eligible.contains(&peer) {
            return Err(usage(format!("{peer} is not banned")));
        }
        Ok(peer)
    }

    /// The change under way is on disk, or is not and does not come about.
    pub(super) fn bans_written(&mut self, written: Result<(), Failure>) -> Result<(), Failure> {
        let Some((Change { peer, banned, reply }, _)) = self.bans.under_way.take() else {
            return Ok(());
        };
        if written.is_ok() {
            self.step(if banned { Input::Ban(peer) } else { Input::Unban(peer) })?;
        }
        let answer = written.map(|()| json!({"peer": peer.to_string(), "banned": banned}));
        let _ = reply.send(answer);
        Ok(())
    }
}
