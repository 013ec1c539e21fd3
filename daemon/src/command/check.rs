//! `starling check`: everything that `run` would trip over, said at once.

use starling_node::spec::Network;

use crate::cli::Check;
use crate::dataset;
use crate::exit::{Failure, say};
use crate::setup::{self, Contacts};
use crate::store::Store;

/// Runs the command.
pub fn run(options: &Check) -> Result<(), Failure> {
    let store = Store::open(&setup::state_dir(&options.place)?)?;
    let mut failures = Vec::new();
    let mut note = |what: &str, result: Result<String, Failure>| match result {
        Ok(found) => say(format!("ok    {what}: {found}")),
        Err(failure) => {
            say(format!("FAIL  {what}: {failure}"));
            failures.push(failure.code);
        }
    };
    let config = setup::configuration(&store, options.config.as_deref());
    let network = setup::network(&store);
    let identity = setup::identity(&store, false);
    note("configuration", config.as_ref().map(|_| "valid".to_owned()).map_err(Clone::clone));
    note("key", identity.as_ref().map(|(_, node)| node.to_string()).map_err(Clone::clone));
    let described = network.as_ref().map(|network| {
        format!(
            "{} \"{}\", {} parameters",
            network.id.short(),
            network.spec.name,
            network.model.len()
        )
    });
    note("network", described.map_err(Clone::clone));
    if let (Ok(network), Ok((_, node))) = (&network, &identity) {
        let chain = setup::membership(&store, network, *node);
        note("membership", chain.map(|chain| membership(chain.len())));
    }
    note("bans", setup::bans(&store).map(|bans| format!("{} peers", bans.len())));
    if let Ok(network) = &network {
        note("checkpoints", checkpoints(&store, network));
    }
    if let Ok(config) = &config {
        let contacts = setup::contacts(&store, config);
        note("peers", contacts.map(|contacts| peers(&contacts)));
        if let Ok(network) = &network {
            let codec = setup::codec_allowed(config, network);
            note("codec", codec.map(|()| config.codec.to_string()));
            let rows = dataset::own_part(config, &network.spec);
            note("data", rows.map(|rows| format!("{} rows", rows.len())));
        }
    }
    match failures.first() {
        None => Ok(()),
        Some(code) => {
            let count = failures.len();
            let plural = if count == 1 { "problem" } else { "problems" };
            Err(Failure::new(*code, format!("{count} {plural} found")))
        }
    }
}

fn membership(links: usize) -> String {
    match links {
        0 => "founder, or of an open network".to_owned(),
        1 => "invited by the founder".to_owned(),
        more => format!("invited by a member, {more} steps from the founder"),
    }
}

fn peers(contacts: &Contacts) -> String {
    let known = format!("{} known", contacts.hints.len());
    match contacts.unusable {
        0 => known,
        unusable => {
            format!("{known}; lines of the file contacts that are no addresses: {unusable}")
        }
    }
}

fn checkpoints(store: &Store, network: &Network) -> Result<String, Failure> {
    let loaded = setup::look_at_checkpoints(store, network)?;
    setup::refuse_to_forget(store, &loaded)?;
    let mut text = match &loaded.newest {
        None => "none yet".to_owned(),
        Some((generation, (standing, _))) => {
            format!("generation {generation}, round {}, age {:.0}", standing.round, standing.age)
        }
    };
    for (generation, reason) in loaded.bad {
        text.push_str(&format!("; generation {generation} is not used: {reason}"));
    }
    Ok(text)
}
