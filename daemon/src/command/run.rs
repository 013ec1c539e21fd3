//! `starling run`: the daemon.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use starling_config::Config;
use starling_node::event::Event;
use starling_node::node::{Identity, Node};
use starling_node::replica::Replica;
use starling_protocol::envelope::Border;
use tokio::sync::oneshot;

use crate::cli::Run;
use crate::compute::Compute;
use crate::control;
use crate::dataset;
use crate::driver::Driver;
use crate::exit::{Code, Failure};
use crate::log;
use crate::net::{Net, Options};
use crate::setup;
use crate::store::{Store, fill_random};
use crate::web;

/// Runs the command. A service's lines are all events, its last words too.
pub fn run(options: &Run) -> Result<(), Failure> {
    start(options).map_err(log::failed)
}

fn start(options: &Run) -> Result<(), Failure> {
    let directory = setup::state_dir(&options.place)?;
    let mut store = Store::open(&directory)?;
    let config = setup::configuration(&store, options.config.as_deref())?;
    log::init(config.log_format);
    log::set_level(config.log_level);
    store.lock()?;
    let passed = web::passed_listener();
    let mut builder = if config.io_threads > 1 {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        builder.worker_threads(config.io_threads);
        builder
    } else {
        tokio::runtime::Builder::new_current_thread()
    };
    // One thread saves, one writes bans, one resolves names.
    let runtime = builder.enable_all().max_blocking_threads(3).build();
    let runtime =
        runtime.map_err(|error| Failure::new(Code::Temporary, format!("no threads: {error}")))?;
    report_panics();
    let orphaned = Arc::new(AtomicBool::new(false));
    let parent = options.ephemeral.then(|| watch_stdin(Arc::clone(&orphaned)));
    let result = runtime.block_on(serve(store, config, options.config.clone(), passed, parent));
    runtime.shutdown_background();
    if orphaned.load(Ordering::Relaxed) {
        remove_orphan(&directory);
    }
    result
}

/// Removes the state directory of a node whose parent is gone; the last one to do so also removes
/// the folder around them.
fn remove_orphan(directory: &Path) {
    // Nobody is left to tell if it fails.
    let _ = std::fs::remove_dir_all(directory);
    let _ = directory.parent().map(std::fs::remove_dir);
}

async fn serve(
    store: Store,
    config: Config,
    config_file: Option<PathBuf>,
    passed: web::Passed,
    parent: Option<oneshot::Receiver<()>>,
) -> Result<(), Failure> {
    if config.nice > 0 {
        // A host that does not allow it runs us at its usual priority.
        let _ = rustix::process::nice(i32::from(config.nice));
    }
    let network = setup::network(&store)?;
    let (key, node_id) = setup::identity(&store, false)?;
    let chain = setup::membership(&store, &network, node_id)?;
    setup::codec_allowed(&config, &network)?;
    let contacts = setup::contacts(&store, &config)?.hints;
    let banned = setup::bans(&store)?;
    let shard = dataset::own_part(&config, &network.spec)?;
    let loaded = setup::restore(&store, &network)?;
    let epoch = store.next_epoch()?;
    log::identify(node_id.to_string(), network.id.short(), epoch);
    log::emit(&Event::DaemonStarted {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        network_id: network.id.to_string(),
        state_dir: store.root().display().to_string(),
        parameters: network.model.len(),
        rows: shard.len(),
    });
    log::emit(&Event::IdentityLoaded {});
    for (generation, reason) in loaded.bad.iter().cloned() {
        log::emit(&Event::CheckpointCorrupt { generation, reason });
    }
    setup::refuse_to_forget(&store, &loaded)?;
    let settings = config.settings();
    let mut secret = [0; 8];
    fill_random(&mut secret)?;
    let mut replica = Replica::new(&network, &shard, &settings, u64::from_le_bytes(secret));
    let resumed = loaded.newest.map(|(generation, (standing, vectors))| {
        let (age, round) = (standing.age, standing.round);
        log::emit(&Event::CheckpointRestored { generation, age, round });
        replica.restore(vectors);
        standing
    });
    let model_bytes_max = network.model_bytes_max();
    let border = Border { network: network.id, me: node_id, epoch, model_bytes_max };
    let (listen, ports, mdns) = (config.listen.clone(), setup::ports(&store), config.mdns);
    let net = Net::start(Options { key: key.clone(), listen, ports, mdns, border }).await?;
    setup::write_ports(&store, net.ports())?;
    let (control, _guard) = control::serve(&store.path("control.sock"))?;
    let board = web::start(store.root(), &config, passed);
    let (id, age_max) = (network.id, network.spec.training.age_max);
    let identity = Identity { key: key.clone(), epoch, chain, contacts, resumed, banned };
    let driver = Driver {
        node: Node::new(network, settings, identity),
        key,
        network: id,
        net,
        compute: Compute::start(replica)?,
        store: Arc::new(store),
        control,
        config,
        config_file,
        rows: shard.len(),
        parent,
        age_max,
        boot: epoch,
        board,
    };
    driver.run().await
}

/// Tells when whoever holds our standard input goes away, by whatever end.
fn watch_stdin(orphaned: Arc<AtomicBool>) -> oneshot::Receiver<()> {
    let (gone, receiver) = oneshot::channel();
    std::thread::spawn(move || {
        let mut buffer = [0; 64];
        while matches!(std::io::stdin().read(&mut buffer), Ok(1..)) {}
        orphaned.store(true, Ordering::Relaxed);
        // The daemon may have ended first.
        let _ = gone.send(());
    });
    receiver
}

/// A panic anywhere ends the process with one line: half a daemon is worse than none.
fn report_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map_or_else(String::new, ToString::to_string);
        log::emit_at_once(&Event::InternalPanic { place });
        std::process::exit(i32::from(Code::Internal as u8));
    }));
}
