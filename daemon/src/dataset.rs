//! A node's data: from the configured source to the rows it trains on.

use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use starling_config::{Config, DataSource};
use starling_learning::data::csv::read_csv;
use starling_learning::data::digits::digits;
use starling_learning::data::idx::read_idx_pair;
use starling_learning::data::partition::partition;
use starling_learning::data::{DataError, Dataset, Shard};
use starling_node::spec::{FeatureSpec, NetworkSpec};

use crate::exit::{Code, Failure};

/// Where Debian's package `dataset-fashion-mnist` puts it.
const FASHION_MNIST: &str = "/usr/share/datasets/fashion-mnist";
/// Classes of a set of images whose network is not known yet.
const IMAGE_CLASSES: usize = 10;

fn unusable(source: &str, error: &DataError) -> Failure {
    Failure::new(Code::Data, format!("data {source}: {error}"))
}

fn open(path: &Path) -> Result<BufReader<File>, Failure> {
    File::open(path).map(BufReader::new).map_err(|error| {
        let message = format!("cannot read the data {}: {error}", path.display());
        Failure::new(Code::Data, message)
    })
}

/// Images scaled to 0..1, from IDX files, compressed or not.
fn read_images(images: &Path, labels: &Path, classes: usize) -> Result<Dataset, Failure> {
    read_idx_pair(open(images)?, open(labels)?, 1.0 / 255.0, classes)
        .map_err(|error| unusable(&images.display().to_string(), &error))
}

fn fashion_mnist(part: &str) -> Result<Dataset, Failure> {
    let directory = PathBuf::from(FASHION_MNIST);
    let file = |kind: &str| directory.join(format!("{part}-{kind}-ubyte.gz"));
    if !directory.is_dir() {
        let message = format!(
            "Fashion-MNIST is not at {FASHION_MNIST}: install Debian's package with `apt-get \
             install dataset-fashion-mnist`"
        );
        return Err(Failure::new(Code::Data, message));
    }
    read_images(&file("images-idx3"), &file("labels-idx1"), 10)
}

/// What a source holds: rows to train on, test rows if it has them apart, and how its columns
/// become features.
#[derive(Debug)]
pub struct Source {
    /// Rows to train on.
    pub train: Dataset,
    /// Rows that nobody trains on.
    pub test: Option<Dataset>,
    /// Names and statistics of columns.
    pub features: FeatureSpec,
}

/// Reads a source whole. `spec` gives classes and normalisation once the network is known.
pub fn read(config: &Config, spec: Option<&NetworkSpec>) -> Result<Source, Failure> {
    let plain = |train, test| Source { train, test, features: FeatureSpec::default() };
    match &config.data {
        DataSource::None => Err(Failure::new(
            Code::Data,
            "no data: set data.source in the configuration, starling.toml of the state directory",
        )),
        DataSource::Digits => {
            let (train, test) = digits().map_err(|error| unusable("digits", &error))?;
            Ok(plain(train, Some(test)))
        }
        DataSource::FashionMnist => {
            standardised(fashion_mnist("train")?, Some(fashion_mnist("t10k")?), spec)
        }
        DataSource::Idx(images) => {
            let labels = config.data_labels.as_ref().ok_or_else(|| {
                Failure::new(Code::Config, "data.labels: name the IDX file with the labels")
            })?;
            let classes = spec.map_or(IMAGE_CLASSES, |spec| spec.model.classes);
            standardised(read_images(images, labels, classes)?, None, spec)
        }
        DataSource::Csv(path) => read_table(config, path, spec),
    }
}

fn read_table(config: &Config, path: &Path, spec: Option<&NetworkSpec>) -> Result<Source, Failure> {
    let name = path.display().to_string();
    let vocabulary = spec.map(|spec| spec.features.labels.as_slice());
    let vocabulary = vocabulary.filter(|labels| !labels.is_empty());
    let table = read_csv(open(path)?, &config.data_label_column, vocabulary)
        .map_err(|error| unusable(&name, &error))?;
    let known = spec.map(|spec| &spec.features).filter(|features| !features.names.is_empty());
    if let Some(known) = known
        && known.names != table.feature_names
    {
        let message = format!(
            "data {name}: the network expects the columns {}, in this order",
            known.names.join(", ")
        );
        return Err(Failure::new(Code::Data, message));
    }
    let features = known.cloned().unwrap_or_else(|| {
        let (mean, scale) = statistics(&table.data);
        FeatureSpec { names: table.feature_names, mean, scale, labels: table.label_names }
    });
    let train = normalised(&table.data, &features).map_err(|error| unusable(&name, &error))?;
    Ok(Source { train, test: None, features })
}

/// Images with mean zero and deviation one over all their values, by the founder's figures. (Worth
/// 1.5 points on Fashion-MNIST at 14x14 over values in 0..1.)
fn standardised(
    train: Dataset,
    test: Option<Dataset>,
    spec: Option<&NetworkSpec>,
) -> Result<Source, Failure> {
    let known = spec.map(|spec| &spec.features).filter(|features| !features.mean.is_empty());
    let features = known.cloned().unwrap_or_else(|| {
        let (mean, deviation) = overall(&train);
        let all = |value: f32| vec![value; train.features()];
        FeatureSpec { mean: all(mean), scale: all(deviation), ..FeatureSpec::default() }
    });
    let scaled =
        |data: Dataset| normalised(&data, &features).map_err(|error| unusable("images", &error));
    let (train, test) = (scaled(train)?, test.map(scaled).transpose()?);
    Ok(Source { train, test, features })
}

/// Mean and standard deviation of all values.
fn overall(data: &Dataset) -> (f32, f32) {
    let count = data.values().len().max(1) as f64;
    let mean = data.values().iter().copied().map(f64::from).sum::<f64>() / count;
    let square = |value: &f32| (f64::from(*value) - mean).powi(2);
    let deviation = (data.values().iter().map(square).sum::<f64>() / count).sqrt() as f32;
    (mean as f32, if deviation.is_normal() { deviation } else { 1.0 })
}

/// Mean and standard deviation of each column; a constant column is left as it is.
fn statistics(data: &Dataset) -> (Vec<f32>, Vec<f32>) {
    let (columns, rows) = (data.features(), data.len().max(1) as f64);
    let mut mean = vec![0.0_f64; columns];
    let mut square = vec![0.0_f64; columns];
    for row in data.values().chunks_exact(columns) {
        for ((mean, square), value) in mean.iter_mut().zip(&mut square).zip(row) {
            *mean += f64::from(*value) / rows;
            *square += f64::from(*value) * f64::from(*value) / rows;
        }
    }
    let deviation = mean.iter().zip(&square).map(|(mean, square)| {
        let deviation = (square - mean * mean).max(0.0).sqrt() as f32;
        if deviation.is_normal() { deviation } else { 1.0 }
    });
    (mean.iter().map(|mean| *mean as f32).collect(), deviation.collect())
}

fn normalised(data: &Dataset, features: &FeatureSpec) -> Result<Dataset, DataError> {
    let mut values = data.values().to_vec();
    for row in values.chunks_exact_mut(data.features()) {
        for ((value, mean), scale) in row.iter_mut().zip(&features.mean).zip(&features.scale) {
            *value = (*value - mean) / scale;
        }
    }
    Dataset::new(data.features(), data.classes(), values, data.labels().to_vec())
}

/// The rows of this node's part.
pub fn own_part(config: &Config, spec: &NetworkSpec) -> Result<Shard, Failure> {
    let source = read(config, Some(spec))?;
    let (found, expected) = (source.train.features(), spec.model.features);
    if found != expected {
        let message = format!(
            "the data has {found} features per row, the network's model takes {expected}: this is \
             not the data of this network"
        );
        return Err(Failure::new(Code::Data, message));
    }
    if source.train.classes() > spec.model.classes {
        let message = format!(
            "the data has {} classes, the network's model tells {} apart",
            source.train.classes(),
            spec.model.classes
        );
        return Err(Failure::new(Code::Data, message));
    }
    let failed = |error: DataError| unusable("part", &error);
    let part = config.part;
    let parts = partition(
        source.train.labels(),
        source.train.classes(),
        part.count,
        &config.split,
        config.split_seed,
    );
    let rows = parts.map_err(failed)?.into_iter().nth(part.index).unwrap_or_default();
    Shard::new(Arc::new(source.train), rows).map_err(failed)
}
