//! The data and the network of a scenario.

use std::sync::Arc;

use starling_config::load;
use starling_config::scenario::ScenarioFile;
use starling_learning::data::{DataError, Dataset, Shard};
use starling_node::spec::Network;

use crate::dataset;
use crate::exit::{Code, Failure};

/// Side of the images that are pooled to half of it.
const IMAGE_SIDE: usize = 28;

/// Data and network of a scenario.
pub(super) struct World {
    pub(super) network: Network,
    pub(super) shards: Vec<Shard>,
    pub(super) pooled: Shard,
    pub(super) test: Shard,
}

fn unusable(error: &DataError) -> Failure {
    Failure::new(Code::Data, error.to_string())
}

impl World {
    pub(super) fn new(scenario: &ScenarioFile) -> Result<Self, Failure> {
        let (name, pooled_images) = match scenario.data.as_str() {
            "fashion-mnist-14" => ("fashion-mnist", true),
            "digits" | "fashion-mnist" => (scenario.data.as_str(), false),
            other => {
                let message = format!(
                    "data: found {other}, allowed is digits, fashion-mnist or fashion-mnist-14"
                );
                return Err(Failure::new(Code::Usage, message));
            }
        };
        let source = [("data.source".to_owned(), name.to_owned())];
        let config = load("scenario", "", &[], &source)
            .map_err(|errors| Failure::new(Code::Internal, errors.to_string()))?;
        let source = dataset::read(&config, None)?;
        let test = source.test.unwrap_or_else(|| source.train.clone());
        let (train, test) = if pooled_images {
            let half = |data: &Dataset| halved(data).map_err(|error| unusable(&error));
            (half(&source.train)?, half(&test)?)
        } else {
            (source.train, test)
        };
        let network = scenario
            .network(train.features(), train.classes())
            .map_err(|error| Failure::new(Code::Usage, error))?;
        let (train, test) = (Arc::new(train), Arc::new(test));
        let shards = scenario.shards(&train).map_err(|error| unusable(&error))?;
        Ok(Self { network, shards, pooled: Shard::all(train), test: Shard::all(test) })
    }
}

/// 28x28 images averaged over squares of two by two.
fn halved(data: &Dataset) -> Result<Dataset, DataError> {
    let half = IMAGE_SIDE / 2;
    let mut values = Vec::with_capacity(data.len() * half * half);
    for row in data.values().chunks_exact(IMAGE_SIDE * IMAGE_SIDE) {
        let pixel = |y: usize, x: usize| row.get(y * IMAGE_SIDE + x).copied().unwrap_or_default();
        for (y, x) in (0..half).flat_map(|y| (0..half).map(move |x| (2 * y, 2 * x))) {
            values.push(
                (pixel(y, x) + pixel(y, x + 1) + pixel(y + 1, x) + pixel(y + 1, x + 1)) / 4.0,
            );
        }
    }
    Dataset::new(half * half, data.classes(), values, data.labels().to_vec())
}
