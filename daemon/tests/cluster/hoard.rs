//! Members that begin to send models and stop in the middle of them.

use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use futures::{AsyncReadExt, AsyncWriteExt, StreamExt};
use libp2p::StreamProtocol;
use libp2p::swarm::dial_opts::DialOpts;
use libp2p_stream::Control;
use serde_json::Value;
use starling_protocol::envelope::{Address, Frame, seal};
use starling_protocol::id::Keypair;
use starling_protocol::message::{ExchangeRequest, Hello, Message, Standing};
use starling_protocol::version;

use crate::harness::{Daemon, Home, PATIENCE, digits, folder, wait_for, whole};
use crate::malformed::{Target, swarm, target};

/// Streams that a node reads of one peer at a time.
const STREAMS: u64 = 2;
/// A frame that stops in the middle had ten seconds once.
const EXCHANGES_MAX: Duration = Duration::from_secs(8);
/// How often who hoards looks whether it is over.
const LOOK: Duration = Duration::from_millis(50);

fn frame(key: &Keypair, target: &Target, sequence: u64, frame: &Frame) -> Vec<u8> {
    let opens = frame.message.kind().opens_a_link();
    let recipient_epoch = if opens { 0 } else { target.boot };
    let (sender, recipient) = (key.id(), target.node);
    let address = Address { sender, recipient, epoch: 1, sequence, recipient_epoch };
    seal(key, target.network, &address, frame).expect("in bounds")
}

fn hello() -> Message {
    let standing = Standing { age: 0.0, round: 0, answers: false, step_ns: 1 };
    Message::Hello(Hello {
        version_min: version::MIN,
        version_max: version::MAX,
        codecs: u32::MAX,
        standing,
        chain: Vec::new(),
        addresses: Vec::new(),
    })
}

/// Says hello, begins a model on each stream, and says no more.
async fn begin(key: &Keypair, target: &Target, control: &mut Control, name: &StreamProtocol) {
    let peer = target.node.to_string().parse().expect("a peer id");
    let request = ExchangeRequest { exchange: 1, age: 0.0, codec: 0, base: None };
    let model = Frame { message: Message::ExchangeRequest(request), slab: vec![0; 1000] };
    let mut held = Vec::new();
    while (held.len() as u64) < STREAMS {
        let Ok(mut stream) = control.open_stream(peer, name.clone()).await else { continue };
        let mut sign = [0];
        if stream.read_exact(&mut sign).await.is_err() {
            continue;
        }
        let number = held.len() as u64;
        if number == 0 {
            let hello = frame(key, target, 1, &hello().into());
            stream.write_all(&hello).await.expect("the node reads");
        }
        let model = frame(key, target, 2 + number, &model);
        stream.write_all(&model[..model.len() - 1]).await.expect("the node reads");
        stream.flush().await.expect("the node reads");
        held.push(stream);
    }
    std::future::pending().await
}

/// A member that hoards until it is over.
async fn hoard(key: &Keypair, target: &Target, over: &AtomicBool) {
    let name = format!("/starling/{}/1", target.network.short());
    let name = StreamProtocol::try_from_owned(name).expect("a name");
    let mut swarm = swarm(key);
    let mut control = swarm.behaviour().new_control();
    let mut incoming = control.accept(name.clone()).expect("the first");
    let peer: libp2p::PeerId = target.node.to_string().parse().expect("a peer id");
    let dial = DialOpts::peer_id(peer).addresses(vec![target.address.clone()]).build();
    swarm.dial(dial).expect("an address");
    let mut holding = pin!(begin(key, target, &mut control, &name));
    let mut taken = Vec::new();
    let mut look = tokio::time::interval(LOOK);
    while !over.load(Ordering::Relaxed) {
        tokio::select! {
            () = &mut holding => {}
            Some((_, mut stream)) = incoming.next() => {
                let _ = stream.write_all(&[1]).await;
                taken.push(stream);
            }
            _ = swarm.select_next_some() => {}
            _ = look.tick() => {}
        }
    }
}

fn model_bytes_being_read(daemon: &Daemon) -> u64 {
    let answer: Value = serde_json::from_str(&daemon.home.ok("limits", &["--json"])).expect("JSON");
    let rows = answer["limits"].as_array().expect("a list").iter();
    let mut found = rows.filter(|row| row["name"] == "model_bytes_being_read");
    whole(found.next().expect("a bound"), "used")
}

#[test]
fn models_that_stop_in_the_middle_hold_no_others_up() {
    let folder = folder();
    let first = Home::new(folder.path(), "first");
    first.init(&[&digits("1/2")[..], &["--age-max", "0", "--open"]].concat());
    let first = first.run();
    let second = Home::new(folder.path(), "second");
    second.join(&first.ticket(1), &digits("2/2"));
    let _second = second.run();
    first.wait_exchanges(5);
    let (target, over) = (target(&first), AtomicBool::new(false));
    thread::scope(|scope| {
        for seed in [51, 52] {
            let (target, over) = (&target, &over);
            scope.spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
                let key = Keypair::from_seed(&[seed; 32]);
                runtime.expect("a runtime").block_on(hoard(&key, target, over));
            });
        }
        let began = wait_for("two models that stop", PATIENCE, || {
            (model_bytes_being_read(&first) >= 2000).then(Instant::now)
        });
        first.wait_exchanges(20);
        let took = began.elapsed();
        over.store(true, Ordering::Relaxed);
        assert!(took < EXCHANGES_MAX, "{took:?}");
    });
    first.stop();
}
