//! `starling init`: a key, a configuration and, with data, a network of one.

use std::path::Path;

use starling_config::{Config, DataSource, render_network};
use starling_learning::compress::Codec;
use starling_learning::model::ModelSpec;
use starling_node::spec::{Membership, NetworkSpec, TrainingSpec};
use starling_protocol::id::NodeId;

use crate::cli::Init;
use crate::dataset;
use crate::exit::{Code, Failure, say};
use crate::setup;
use crate::store::{Store, fill_random};

/// Defaults of a new network: three quarters of the rate that suits plain SGD on inputs scaled to
/// about one, as outer momentum adds to it.
pub const RATE: f64 = 0.15;
/// Rows per local step.
pub const BATCH: u32 = 32;
/// Local steps until learning ends: about a minute at the pace of practice nodes.
const AGE_MAX: f64 = 4000.0;

/// Runs the command.
pub fn run(options: &Init) -> Result<(), Failure> {
    let directory = setup::state_dir(&options.place)?;
    let store = found(options, &directory, None)?;
    let (_, node) = setup::identity(&store, false)?;
    let place = directory.display();
    say(format!("node     {node}"));
    say(format!("state    {place}"));
    match store.read_text("network.toml")? {
        Some(_) => {
            say(format!("network  {}", setup::network(&store)?.id.short()));
            say(format!("next     {}", setup::how_to_start(&directory)));
            say(format!("         starling invite --state-dir {place}   (once it runs)"));
        }
        None => say(format!("next     starling join TICKET --state-dir {place}")),
    }
    Ok(())
}

/// Makes the state directory. `seed` decides the network's genesis instead of chance.
pub fn found(options: &Init, directory: &Path, seed: Option<u32>) -> Result<Store, Failure> {
    let mut store = Store::create(directory)?;
    store.lock()?;
    if store.read_text("starling.toml")?.is_some() {
        let message = format!(
            "{} already holds a node: use another --state-dir, or edit starling.toml there",
            directory.display()
        );
        return Err(Failure::new(Code::Usage, message));
    }
    let pace = setup::practice_pace(options.data.data.as_ref());
    let (config, text) = setup::new_configuration(&store, &options.data, pace)?;
    let network =
        if setup::has_data(&config) { Some(specify(options, &config, seed)?) } else { None };
    let (_, node) = setup::identity(&store, true)?;
    if let Some(mut spec) = network {
        spec.root = node;
        let rendered = render_network(&spec);
        spec.check().map_err(|error| Failure::new(Code::Usage, error.to_string()))?;
        store.write("network.toml", rendered.as_bytes())?;
    }
    store.write("starling.toml", text.as_bytes())?;
    Ok(store)
}

/// A network for the data at hand, without its root.
fn specify(options: &Init, config: &Config, seed: Option<u32>) -> Result<NetworkSpec, Failure> {
    let source = dataset::read(config, None)?;
    let mut chance = [0; 4];
    fill_random(&mut chance)?;
    let usual: &[usize] = match config.data {
        DataSource::FashionMnist | DataSource::Idx(_) => &[128],
        _ => &[32],
    };
    let hidden = options.hidden.as_ref().map_or(Ok(usual.to_vec()), |text| {
        let numbers = text.split(',').map(str::trim).filter(|part| !part.is_empty());
        numbers.map(str::parse).collect::<Result<Vec<usize>, _>>().map_err(|_| {
            let message = format!("--hidden {text}: expected numbers such as 128,64");
            Failure::new(Code::Usage, message)
        })
    })?;
    let age_max = options.age_max.unwrap_or(AGE_MAX);
    Ok(NetworkSpec {
        version: NetworkSpec::VERSION,
        name: options.name.clone().unwrap_or_else(|| "flock".to_owned()),
        genesis_seed: seed.unwrap_or(u32::from_le_bytes(chance)),
        codecs: Codec::ALL.to_vec(),
        membership: if options.open { Membership::Open } else { Membership::Invite },
        root: NodeId([0; 32]),
        model: ModelSpec {
            features: source.train.features(),
            hidden,
            classes: source.train.classes(),
        },
        training: TrainingSpec {
            rate: options.rate.unwrap_or(RATE),
            momentum: 0.0,
            batch: options.batch.unwrap_or(BATCH),
            age_max: (age_max > 0.0).then_some(age_max),
        },
        features: source.features,
    })
}
