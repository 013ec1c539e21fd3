//! `starling join`: from a ticket to a node that is a member.

use std::collections::BTreeSet;
use std::time::Duration;

use starling_config::render_network;
use starling_node::spec::{Network, NetworkSpec};
use starling_protocol::admission::{Certificate, check_chain, encode_chain};
use starling_protocol::envelope::{Address, Border, Frame, Verified, seal};
use starling_protocol::id::{Keypair, NodeId};
use starling_protocol::message::{self, Hint, Message};
use starling_protocol::ticket::Ticket;
use tokio::time::{Instant, timeout_at};

use crate::cli::Join;
use crate::exit::{Code, Failure, say};
use crate::net::{Net, NetEvent, Options, parse_contact};
use crate::setup;
use crate::store::Store;

/// How long a member may take to answer.
const PATIENCE: Duration = Duration::from_secs(20);
/// Addresses of members kept from the answer.
const CONTACTS_MAX: usize = 32;

struct Admission {
    network: Network,
    chain: Vec<Certificate>,
    contacts: Vec<Hint>,
}

/// Runs the command.
pub fn run(options: &Join) -> Result<(), Failure> {
    let ticket = Ticket::parse(&options.ticket)
        .map_err(|error| Failure::new(Code::Usage, error.to_string()))?;
    let directory = setup::state_dir(&options.place)?;
    let mut store = Store::create(&directory)?;
    store.lock()?;
    refuse_other_network(&store, &ticket)?;
    setup::quiet_log();
    let configured = configure(&store, options)?;
    let (key, node) = setup::identity(&store, true)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime =
        runtime.map_err(|error| Failure::new(Code::Temporary, format!("no threads: {error}")))?;
    let epoch = store.next_epoch()?;
    let admission = runtime.block_on(ask_members(&ticket, &options.ticket, &key, epoch))?;
    runtime.shutdown_background();

    let chain = encode_chain(&admission.chain)
        .map_err(|error| Failure::new(Code::Internal, error.to_string()))?;
    store.write("network.toml", render_network(&admission.network.spec).as_bytes())?;
    store.write("membership", &chain)?;
    store.write("contacts", contact_lines(&admission.contacts).as_bytes())?;
    if let Some(text) = configured {
        store.write("starling.toml", text.as_bytes())?;
    }
    say(format!("node     {node}"));
    say(format!("network  {} \"{}\"", admission.network.id.short(), admission.network.spec.name));
    say(format!("state    {}", directory.display()));
    // What cannot be read is told by the command that is next.
    if setup::configuration(&store, None).is_ok_and(|config| !setup::has_data(&config)) {
        say(format!("first    set data.source in {}", store.path("starling.toml").display()));
    }
    say(format!("next     {}", setup::how_to_start(&directory)));
    Ok(())
}

/// A node that has learnt something belongs to its network.
fn refuse_other_network(store: &Store, ticket: &Ticket) -> Result<(), Failure> {
    if store.read("network.toml")?.is_none() || !store.has_checkpoints()? {
        return Ok(());
    }
    let network = setup::network(store)?;
    if network.id == ticket.terms.network {
        return Ok(());
    }
    let message = format!(
        "{} holds a node of network {} that has learnt something: join with another --state-dir",
        store.root().display(),
        network.id.short()
    );
    Err(Failure::new(Code::Usage, message))
}

/// The configuration of the new member, unless it has one.
fn configure(store: &Store, options: &Join) -> Result<Option<String>, Failure> {
    if store.read_text("starling.toml")?.is_none() {
        let pace = setup::practice_pace(options.data.data.as_ref());
        return setup::new_configuration(store, &options.data, pace).map(|(_, text)| Some(text));
    }
    if options.data.data.is_some() || !options.data.set.is_empty() {
        let message = "starling.toml exists: edit it instead of giving data options";
        return Err(Failure::new(Code::Usage, message));
    }
    Ok(None)
}

/// Members to dial, one address a line. They come from another node, which may have been told
/// nonsense itself: what is no address is left out.
fn contact_lines(contacts: &[Hint]) -> String {
    let lines = contacts.iter().flat_map(|hint| {
        hint.addresses.iter().map(move |address| format!("{address}/p2p/{}", hint.id))
    });
    let one_address =
        |line: &String| !line.contains(char::is_control) && parse_contact(line).is_ok();
    lines.filter(one_address).take(CONTACTS_MAX).map(|line| line + "\n").collect()
}

async fn ask_members(
    ticket: &Ticket,
    text: &str,
    key: &Keypair,
    epoch: u64,
) -> Result<Admission, Failure> {
    let terms = &ticket.terms;
    let border = Border { network: terms.network, me: key.id(), epoch, model_bytes_max: 0 };
    let options =
        Options { key: key.clone(), listen: Vec::new(), ports: Vec::new(), mdns: false, border };
    let mut net = Net::start(options).await?;
    let deadline = Instant::now() + PATIENCE;
    for contact in &terms.contacts {
        net.dial(contact.clone());
    }
    let mut reasons: Vec<String> = Vec::new();
    let mut sequence = 0;
    // A contact may be lost in more than one way.
    let mut open: BTreeSet<NodeId> = terms.contacts.iter().map(|contact| contact.id).collect();
    while !open.is_empty() {
        let Ok(Some(event)) = timeout_at(deadline, net.next()).await else {
            reasons.push(format!("no answer within {} s", PATIENCE.as_secs()));
            break;
        };
        match event {
            NetEvent::Up(peer) => {
                sequence += 1;
                let join = Message::Join(message::Join { ticket: text.trim().to_owned() });
                let (sender, recipient, recipient_epoch) = (key.id(), peer, 0);
                let address = Address { sender, recipient, epoch, sequence, recipient_epoch };
                let sealed = seal(key, terms.network, &address, &join.into())
                    .map_err(|error| Failure::new(Code::Internal, error.to_string()))?;
                net.send(peer, sealed);
            }
            NetEvent::Frame(frame) => match read_answer(*frame, ticket, key.id())? {
                Some(admission) => {
                    net.stop().await;
                    return Ok(admission);
                }
                None => continue,
            },
            NetEvent::DialFailed(peer, reason) => {
                if let Some(peer) = peer {
                    open.remove(&peer);
                }
                reasons.push(reason);
            }
            NetEvent::Refused(peer, rejection) => {
                open.remove(&peer);
                reasons.push(format!("{} answered with a bad frame: {rejection}", peer.short()));
            }
            NetEvent::Broken(peer) | NetEvent::Down(peer) => {
                if open.remove(&peer) {
                    reasons.push(format!("{} closed the connection", peer.short()));
                }
            }
            NetEvent::Listening(_) | NetEvent::Discovered(_) => {}
        }
    }
    let message = format!(
        "no member could be reached: {}. Check that the inviter runs and that its address is right",
        reasons.join("; ")
    );
    Err(Failure::new(Code::Unavailable, message))
}

/// What a member said; none if it is not an answer yet.
fn read_answer(
    verified: Verified,
    ticket: &Ticket,
    me: NodeId,
) -> Result<Option<Admission>, Failure> {
    let Frame { message, slab } = verified.frame;
    match message {
        Message::Denied(denial) => {
            let who = verified.address.sender.short();
            Err(Failure::new(Code::Permission, format!("{who} did not let this node in: {denial}")))
        }
        Message::Welcome(welcome) => {
            let wrong = |what: &str| {
                let message = format!("the member's answer is wrong: {what}. Ask another member");
                Failure::new(Code::Unavailable, message)
            };
            let network =
                NetworkSpec::from_canonical(&slab).map_err(|error| wrong(&error.to_string()))?;
            let terms = &ticket.terms;
            if network.id != terms.network || network.spec.root != terms.root {
                return Err(wrong("its specification is not that of the ticket's network"));
            }
            check_chain(network.id, terms.root, &welcome.chain, me)
                .map_err(|denial| wrong(&denial.to_string()))?;
            let mut contacts = welcome.hints;
            contacts.retain(|hint| hint.id != me && !hint.addresses.is_empty());
            let known: Vec<NodeId> = contacts.iter().map(|hint| hint.id).collect();
            contacts
                .extend(terms.contacts.iter().filter(|hint| !known.contains(&hint.id)).cloned());
            Ok(Some(Admission { network, chain: welcome.chain, contacts }))
        }
        _ => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_addresses_become_contacts() {
        let id = Keypair::from_seed(&[3; 32]).id();
        let good = "/ip4/192.0.2.7/tcp/4001";
        let told = ["", "nonsense", "/ip4/192.0.2.7/tcp/x", "/dns4/a\nb/tcp/1", "/fly/1", good];
        let hint = Hint { id, addresses: told.map(str::to_owned).to_vec() };
        let many = vec![hint; CONTACTS_MAX + 1];
        let expected = format!("{good}/p2p/{id}\n").repeat(CONTACTS_MAX);
        assert_eq!(contact_lines(&many), expected);
    }
}
