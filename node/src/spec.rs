//! What a network is: everything its nodes must agree on, and the id that follows from it.

use serde::{Deserialize, Serialize};
use starling_learning::compress::{Codec, Codecs};
use starling_learning::model::{Model, ModelError, ModelSpec};
use starling_learning::optim::Schedule;
use starling_protocol::codec::{self, CodecError};
use starling_protocol::id::{NetworkId, NodeId};
use starling_protocol::limits::{MODEL_BYTES_MAX, SPEC_BYTES_MAX};

/// Longest network name.
pub const NAME_CHARS_MAX: usize = 64;
/// Largest batch.
pub const BATCH_MAX: u32 = 65_536;

/// Who may be a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Membership {
    /// Whoever a member invited with a ticket.
    Invite,
    /// Anyone who knows the network.
    Open,
}

/// How every node trains. Ages are in local steps.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainingSpec {
    /// Learning rate at age zero.
    pub rate: f64,
    /// Heavy-ball momentum of local steps, 0 to below 1.
    pub momentum: f64,
    /// Rows per local step.
    pub batch: u32,
    /// Age at which the learning rate has fallen to zero and training ends; absent in networks
    /// that go on for ever.
    pub age_max: Option<f64>,
}

/// How rows become features, where that is not the identity.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FeatureSpec {
    /// Names of the columns, in order; empty for images.
    pub names: Vec<String>,
    /// Subtracted from each feature; empty for none.
    pub mean: Vec<f32>,
    /// Divides each feature afterwards; empty for none.
    pub scale: Vec<f32>,
    /// Names of the classes, in order; empty for plain numbers.
    pub labels: Vec<String>,
}

/// A network.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NetworkSpec {
    /// Version of this structure.
    pub version: u16,
    /// For people.
    pub name: String,
    /// Seed of the parameters that every node starts from.
    pub genesis_seed: u32,
    /// Codecs that members may use; all members decode all of them.
    pub codecs: Vec<Codec>,
    /// Who may be a member.
    pub membership: Membership,
    /// The founder, whose certificates begin every chain.
    pub root: NodeId,
    /// The model.
    pub model: ModelSpec,
    /// How it is trained.
    pub training: TrainingSpec,
    /// How rows become features.
    pub features: FeatureSpec,
}

/// A specification that no network can have.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum SpecError {
    /// The model is out of bounds.
    #[error("{0}")]
    Model(#[from] ModelError),
    /// Another field is.
    #[error("{key}: found {found}, expected {expected}")]
    Field {
        /// Dotted name of the field.
        key: &'static str,
        /// What it holds.
        found: String,
        /// What is allowed.
        expected: &'static str,
    },
    /// The bytes are not those of a specification.
    #[error("not a network specification of this version: {0}")]
    Undecodable(#[from] CodecError),
    /// The specification takes too many bytes.
    #[error("the specification takes {0} bytes; at most {SPEC_BYTES_MAX} may be shared")]
    TooLong(usize),
}

fn field(key: &'static str, found: impl ToString, expected: &'static str) -> SpecError {
    SpecError::Field { key, found: found.to_string(), expected }
}

impl NetworkSpec {
    /// The version that this build writes and reads.
    pub const VERSION: u16 = 1;

    /// Checks every field and gives the canonical form.
    ///
    /// # Errors
    /// The first field that is out of bounds.
    pub fn check(self) -> Result<Network, SpecError> {
        if self.version != Self::VERSION {
            return Err(field("version", self.version, "1 (a newer Starling made this network)"));
        }
        let plain = |text: &str| !text.chars().any(char::is_control);
        if self.name.chars().count() > NAME_CHARS_MAX || !plain(&self.name) {
            return Err(field("name", self.name.len(), "at most 64 printable characters"));
        }
        let model = self.model.model()?;
        let training = &self.training;
        if !(training.rate > 0.0 && training.rate <= 100.0) {
            return Err(field("training.rate", training.rate, "above 0, at most 100"));
        }
        if !(0.0..1.0).contains(&training.momentum) {
            return Err(field("training.momentum", training.momentum, "0 to below 1"));
        }
        if !(1..=BATCH_MAX).contains(&training.batch) {
            return Err(field("training.batch", training.batch, "1 to 65536"));
        }
        if let Some(age) = training.age_max.filter(|age| !(1.0..=1e15).contains(age)) {
            return Err(field("training.age_max", age, "1 to 1e15 local steps, or absent"));
        }
        if !Network::ABSOLUTE.iter().any(|codec| self.codecs.contains(codec)) {
            return Err(field("codecs", self.codecs.len(), "int6, int8 or fp32 among them"));
        }
        self.check_features()?;
        if Codec::Fp32.encoded_len_max(model.len()) > MODEL_BYTES_MAX {
            return Err(field("model", model.len(), "at most 64 Mi parameters"));
        }
        let canonical = codec::encode(&self)?;
        if canonical.len() > SPEC_BYTES_MAX {
            return Err(SpecError::TooLong(canonical.len()));
        }
        let id = NetworkId(*blake3::hash(&canonical).as_bytes());
        Ok(Network { id, spec: self, canonical, model })
    }

    fn check_features(&self) -> Result<(), SpecError> {
        let (features, classes) = (self.model.features, self.model.classes);
        let fits = |length: usize, expected: usize| length == 0 || length == expected;
        let spec = &self.features;
        if !fits(spec.names.len(), features) {
            return Err(field("features.names", spec.names.len(), "as many as model.features"));
        }
        if !fits(spec.mean.len(), features) || spec.mean.iter().any(|mean| !mean.is_finite()) {
            return Err(field("features.mean", spec.mean.len(), "a finite one per feature"));
        }
        let usable = |scale: &f32| scale.is_normal() && *scale > 0.0;
        if !fits(spec.scale.len(), features) || !spec.scale.iter().all(usable) {
            return Err(field("features.scale", spec.scale.len(), "a positive one per feature"));
        }
        if !fits(spec.labels.len(), classes) {
            return Err(field("features.labels", spec.labels.len(), "as many as model.classes"));
        }
        Ok(())
    }

    /// Reads canonical bytes, as they come from a member.
    ///
    /// # Errors
    /// Why they are no specification.
    pub fn from_canonical(bytes: &[u8]) -> Result<Network, SpecError> {
        codec::decode_exact::<Self>(bytes)?.check()
    }
}

/// A checked specification.
#[derive(Clone, Debug)]
pub struct Network {
    /// BLAKE3 of the canonical bytes.
    pub id: NetworkId,
    /// What it says.
    pub spec: NetworkSpec,
    /// Its canonical bytes.
    pub canonical: Vec<u8>,
    /// Its model.
    pub model: Model,
}

impl Network {
    /// The schedule of every node's learning rate.
    #[must_use]
    pub fn schedule(&self) -> Schedule {
        Schedule { rate: self.spec.training.rate, age_max: self.spec.training.age_max }
    }

    /// The parameters that every node starts from.
    #[must_use]
    pub fn genesis(&self) -> Vec<f32> {
        self.model.genesis(u64::from(self.spec.genesis_seed))
    }

    /// Codecs for whole models, the most compact first; a network allows one of them at least.
    const ABSOLUTE: [Codec; 3] = [Codec::Int6, Codec::Int8, Codec::Fp32];

    /// Largest encoded model that a member may send.
    #[must_use]
    pub fn model_bytes_max(&self) -> usize {
        let lengths = self.spec.codecs.iter().map(|codec| codec.encoded_len_max(self.model.len()));
        lengths.max().unwrap_or(0)
    }

    /// The codec for first contacts with a partner that decodes `codecs`: the most compact that
    /// needs no reference. None if it decodes none of this network's.
    #[must_use]
    pub fn absolute_codec(&self, codecs: Codecs) -> Option<Codec> {
        self.first_of(Self::ABSOLUTE, codecs)
    }

    /// The codec for snapshots. What int6 loses comes with the next exchange of a pair; a snapshot
    /// has no next, and mixing by int6 snapshots cost the paranoid profile five points.
    #[must_use]
    pub fn snapshot_codec(&self, codecs: Codecs) -> Option<Codec> {
        self.first_of([Codec::Int8, Codec::Fp32, Codec::Int6], codecs)
    }

    fn first_of(&self, wanted: [Codec; 3], codecs: Codecs) -> Option<Codec> {
        let common = |codec: &Codec| self.spec.codecs.contains(codec) && codecs.contains(*codec);
        wanted.into_iter().find(common)
    }
}

#[cfg(test)]
mod tests {
    use starling_protocol::id::Keypair;

    use super::*;

    pub(crate) fn spec() -> NetworkSpec {
        NetworkSpec {
            version: 1,
            name: "test".into(),
            genesis_seed: 1,
            codecs: vec![Codec::Int8, Codec::Ref3],
            membership: Membership::Invite,
            root: Keypair::from_seed(&[1; 32]).id(),
            model: ModelSpec { features: 4, hidden: vec![3], classes: 2 },
            training: TrainingSpec { rate: 0.1, momentum: 0.0, batch: 8, age_max: Some(100.0) },
            features: FeatureSpec::default(),
        }
    }

    #[test]
    fn the_id_is_golden_and_covers_every_field() {
        let network = spec().check().expect("in bounds");
        assert_eq!(network.id.short(), "ddc529f4bc73c7df");
        let changes: [fn(&mut NetworkSpec); 6] = [
            |spec| spec.name.push('x'),
            |spec| spec.genesis_seed = 2,
            |spec| spec.training.rate = 0.2,
            |spec| spec.training.age_max = None,
            |spec| spec.model.hidden = vec![],
            |spec| spec.membership = Membership::Open,
        ];
        for change in changes {
            let mut other = spec();
            change(&mut other);
            assert_ne!(other.check().expect("in bounds").id, network.id);
        }
    }

    #[test]
    fn canonical_bytes_read_back_and_damage_is_noticed() {
        let network = spec().check().expect("in bounds");
        let back = NetworkSpec::from_canonical(&network.canonical).expect("own bytes");
        assert_eq!(back.id, network.id);
        for end in 0..network.canonical.len() {
            assert!(NetworkSpec::from_canonical(&network.canonical[..end]).is_err());
        }
    }

    #[test]
    fn fields_out_of_bounds_are_named() {
        type Change = fn(&mut NetworkSpec);
        let changes: [(&str, Change); 9] = [
            ("version", |spec| spec.version = 9),
            ("name", |spec| spec.name = "\u{1b}[2J".into()),
            ("training.rate", |spec| spec.training.rate = f64::NAN),
            ("training.momentum", |spec| spec.training.momentum = 1.0),
            ("training.batch", |spec| spec.training.batch = 0),
            ("training.age_max", |spec| spec.training.age_max = Some(f64::INFINITY)),
            ("codecs", |spec| spec.codecs = vec![Codec::Ref3]),
            ("features.scale", |spec| spec.features.scale = vec![1.0, 0.0, 1.0, 1.0]),
            ("model.classes", |spec| spec.model.classes = 1),
        ];
        for (key, change) in changes {
            let mut wrong = spec();
            change(&mut wrong);
            let error = wrong.check().expect_err(key).to_string();
            assert!(error.starts_with(key), "{error}");
        }
    }
}
