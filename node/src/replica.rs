//! The one owner of a node's weights. It does jobs and knows nothing of time or the network.

use starling_learning::compress::{Codec, Codecs};
use starling_learning::data::Shard;
use starling_learning::eval::{Evaluation, evaluate};
use starling_learning::mix::filter::DirectionFilter;
use starling_learning::mix::gate::{Verdict, judge};
use starling_learning::mix::outer::Average;
use starling_learning::mix::robust::{coordinate_median, nearest_neighbour_means, trimmed_mean};
use starling_learning::mix::trial::Trials;
use starling_learning::mix::{add_scaled_difference, distance, norm};
use starling_learning::model::Workspace;
use starling_learning::optim::Schedule;
use starling_learning::params::first_non_finite;
use starling_learning::trainer::Trainer;
use starling_protocol::gate::lower_median;
use starling_protocol::id::NodeId;
use starling_protocol::limits::SCORE_ROWS_MAX;

use crate::checkpoint::{self, Vectors};
use crate::jobs::{Base, Done, Encoded, Job, Merge, MergeTerms};
use crate::references::References;
use crate::settings::{Rule, Settings};
use crate::spec::Network;

/// Held-back rows that a model is tried on at each merge, at most those of a batch: enough to tell
/// a step back from chance within a few exchanges, and a twelfth of what four local steps cost.
const TRIAL_ROWS: usize = 32;
/// Peers whose direction the direction filter remembers.
const FILTER_PEERS_MAX: usize = 32;
/// Hold-out rows that a model is tried on before it is adopted.
const ADOPTED_ROWS: usize = 256;
/// It may be so many times as long as what all begin from.
const ADOPTED_NORM_MAX: f64 = 100.0;
/// A snapshot may be so many times as far from genesis as the lower half of those given.
const ADOPTED_FARTHER_MAX: f64 = 2.0;
/// A mean loss beyond this many times the usual one means that training has diverged.
const DIVERGED: f64 = 4.0;
/// Rounds after that in which the outer step is taken at half its rate.
const CALM_ROUNDS: u32 = 50;

/// Weights, momentum, served average, references and the trainer.
#[derive(Clone, Debug)]
pub struct Replica {
    network: Network,
    schedule: Schedule,
    rule: Rule,
    trainer: Trainer,
    holdout: Shard,
    space: Workspace,
    x: Vec<f32>,
    anchor: Vec<f32>,
    velocity: Vec<f32>,
    served: Average,
    /// `x` at the start of the round plus all merges since: what is left is the local update.
    base: Vec<f32>,
    update_norm: f64,
    usual_loss: f64,
    diverged: bool,
    calm_rounds: u32,
    merged: bool,
    idle_rounds: u32,
    /// Our model as the partner of the open exchange decoded it.
    sent: Vec<f32>,
    references: References,
    filter: DirectionFilter<NodeId>,
    trials: Trials<NodeId>,
    /// What the trial of the model at hand found, if it was tried.
    tried: Option<Evaluation>,
}

impl Replica {
    /// A replica at the network's genesis that trains on `shard`. `secret` seeds the direction
    /// filter; it must not be known to peers.
    #[must_use]
    pub fn new(network: &Network, shard: &Shard, settings: &Settings, secret: u64) -> Self {
        let (train, holdout) = shard.split_holdout(settings.seed);
        let training = &network.spec.training;
        let x = network.genesis();
        Self {
            network: network.clone(),
            schedule: network.schedule(),
            rule: settings.rule,
            trainer: Trainer::new(
                train,
                training.batch as usize,
                training.momentum as f32,
                // Not the same batches again after each restart.
                settings.seed ^ secret,
            ),
            holdout,
            space: Workspace::default(),
            anchor: x.clone(),
            velocity: vec![0.0; x.len()],
            served: Average::of(&x, settings.rule.serve_decay),
            base: x.clone(),
            update_norm: 0.0,
            usual_loss: (network.spec.model.classes as f64).ln(),
            diverged: false,
            calm_rounds: 0,
            merged: false,
            idle_rounds: 0,
            sent: Vec::new(),
            references: References::new(settings.reference_bytes_max, x.len()),
            filter: DirectionFilter::new(x.len(), FILTER_PEERS_MAX, secret),
            trials: Trials::new(FILTER_PEERS_MAX),
            tried: None,
            x,
        }
    }

    /// Goes on from a checkpoint.
    pub fn restore(&mut self, vectors: Vectors) {
        self.base.clone_from(&vectors.x);
        self.x = vectors.x;
        self.anchor = vectors.anchor;
        self.velocity = vectors.velocity;
        self.served = Average::of(&vectors.served, self.rule.serve_decay);
        self.references.clear();
        self.references.restore(vectors.references);
    }

    /// The working parameters.
    #[must_use]
    pub fn params(&self) -> &[f32] {
        &self.x
    }

    /// The parameters that are served.
    #[must_use]
    pub fn served(&self) -> &[f32] {
        self.served.values()
    }

    /// Bytes of pair references held, and the most that will be.
    #[must_use]
    pub fn reference_bytes(&self) -> (usize, usize) {
        self.references.bytes(self.x.len())
    }

    /// Names the pair reference with `peer`.
    #[cfg(test)]
    pub(crate) fn reference_hash(&self, peer: NodeId) -> Option<u64> {
        self.references.newest_hash(peer)
    }

    /// Length of the last round's local update.
    #[must_use]
    pub fn update_norm(&self) -> f64 {
        self.update_norm
    }

    /// Scores the served parameters on up to `rows` rows, or all.
    #[must_use]
    pub fn evaluate(&mut self, shard: &Shard, rows: Option<usize>) -> Evaluation {
        evaluate(&self.network.model, self.served.values(), shard, rows, &mut self.space)
    }

    pub(crate) fn replace_params(&mut self, params: &[f32]) {
        if params.len() == self.x.len() {
            self.x.copy_from_slice(params);
        }
    }

    /// A partner's model, if its reference is held.
    pub(crate) fn decode(&self, peer: NodeId, model: &Encoded) -> Option<Vec<f32>> {
        let reference = match model.base {
            None => None,
            Some(hash) => Some(self.references.find(peer, hash)?),
        };
        read_relative(model, self.x.len(), reference.as_deref())
    }

    pub(crate) fn begin_round(&mut self) {
        self.base.clone_from(&self.x);
    }

    /// One local step at `age`; its loss.
    pub(crate) fn train_step(&mut self, age: f64) -> f64 {
        let rate = self.schedule.rate_at(age);
        self.trainer.step(&self.network.model, &mut self.x, rate, &mut self.space)
    }

    /// Takes the measure of the local update; the loss, or the usual one if training diverged.
    pub(crate) fn end_training(&mut self, loss: f64) -> f64 {
        let broken = first_non_finite(&self.x).is_some();
        if broken || !loss.is_finite() || loss > DIVERGED * self.usual_loss.max(1.0) {
            self.fall_back();
            return self.usual_loss;
        }
        self.update_norm = distance(&self.x, &self.base);
        self.usual_loss = 0.9 * self.usual_loss + 0.1 * loss;
        loss
    }

    /// Back to the served model, without momentum.
    fn fall_back(&mut self) {
        self.x.clone_from_slice(self.served.values());
        self.anchor.clone_from(&self.x);
        self.base.clone_from(&self.x);
        self.velocity.fill(0.0);
        self.trainer.reset_momentum();
        self.diverged = true;
        self.calm_rounds = CALM_ROUNDS;
    }

    /// Does any job but training. Between two steps of a round training may have broken down: what
    /// is no number must reach no peer, no reference and no checkpoint.
    pub(crate) fn perform(&mut self, job: Job) -> Option<Done> {
        if first_non_finite(&self.x).is_some() {
            self.fall_back();
        }
        Some(match job {
            Job::Train { .. } => return None,
            Job::Encode { peer, base, codecs } => Done::Encoded(self.encode(peer, base, codecs)),
            Job::Absorb { peer, reply, terms } => self.absorb(peer, &reply, &terms),
            Job::Answer { peer, request, terms, score, codecs } => {
                self.answer(peer, &request, terms.as_ref(), score, codecs)
            }
            Job::Finish { age } => self.finish(age),
            Job::Snapshot { codecs, .. } => Done::Snapshot(self.snapshot(codecs)),
            Job::Mix { models, trim } => Done::Mixed(self.mix(&models, trim)),
            Job::Adopt { snapshots } => Done::Adopted(self.adopt(&snapshots)),
            Job::Checkpoint { standing } => Done::Checkpoint(checkpoint::encode(
                self.network.id,
                &standing,
                [&self.x, &self.anchor, &self.velocity, self.served.values()],
                &self.references.recent(),
            )),
        })
    }

    fn encode(&mut self, peer: NodeId, base: Base, codecs: Codecs) -> Encoded {
        // A member decodes one of the network's absolute codecs, or it would not be linked.
        let absolute = self.network.absolute_codec(codecs).unwrap_or(Codec::Fp32);
        let wanted = self.rule.codec;
        let wanted = if codecs.contains(wanted) { wanted } else { absolute };
        let reference = match (wanted, base) {
            (Codec::Ref3, Base::Newest) => self.references.newest(peer),
            (Codec::Ref3, Base::Held(hash)) => {
                self.references.find(peer, hash).map(|values| (values, hash))
            }
            _ => None,
        };
        let codec = match (wanted, &reference) {
            (Codec::Ref3, None) => absolute,
            (codec, _) => codec,
        };
        let (reference, base) = reference.unzip();
        let (slab, decoded) = write_relative(codec, &self.x, reference.as_deref());
        self.sent = decoded;
        Encoded { codec, base, slab }
    }

    fn absorb(&mut self, peer: NodeId, reply: &Encoded, terms: &MergeTerms) -> Done {
        let sent = core::mem::take(&mut self.sent);
        let Some(theirs) = read_relative(reply, self.x.len(), Some(&sent)) else {
            return Done::BadModel;
        };
        // The partner has this mid-point too; if it forgets it in a crash, a whole model follows.
        self.references.remember(peer, None, &sent, &theirs);
        Done::Absorbed(self.merge(peer, &theirs, &sent, terms, true))
    }

    fn answer(
        &mut self,
        peer: NodeId,
        request: &Encoded,
        terms: Option<&MergeTerms>,
        score: bool,
        codecs: Codecs,
    ) -> Done {
        let reference = match request.base {
            None => None,
            Some(hash) => match self.references.find(peer, hash) {
                Some(values) => Some(values),
                None => {
                    let held = self.references.newest_hash(peer);
                    return Done::BaseMismatch { held };
                }
            },
        };
        let Some(theirs) = read_relative(request, self.x.len(), reference.as_deref()) else {
            return Done::BadModel;
        };
        // Relative to what we just read, ours is a small difference, whatever theirs came as. Who
        // asks with exact models wants exact ones.
        let coarse = matches!(request.codec, Codec::Int6 | Codec::Int8);
        let small = self.rule.codec == Codec::Ref3 && coarse && codecs.contains(Codec::Ref3);
        let codec = if small { Codec::Ref3 } else { request.codec };
        let (slab, ours) = write_relative(codec, &self.x, Some(&theirs));
        self.references.remember(peer, request.base, &ours, &theirs);
        self.tried = None;
        let merge = terms.map(|terms| self.merge(peer, &theirs, &ours, terms, false));
        let tried = self.tried.take();
        let score = score.then(|| {
            let found = tried.unwrap_or_else(|| {
                let (model, rows) = (&self.network.model, Some(SCORE_ROWS_MAX as usize));
                evaluate(model, &theirs, &self.holdout, rows, &mut self.space)
            });
            (found.correct, found.total)
        });
        let reply = Encoded { codec, base: None, slab };
        Done::Answered { reply, merge, score, taken: 0 }
    }

    /// Moves `x` along `theirs - ours`, both as they were on the wire, so that the mean of the pair
    /// stays what it was. `drawn` are partners that we asked ourselves.
    fn merge(
        &mut self,
        peer: NodeId,
        theirs: &[f32],
        ours: &[f32],
        terms: &MergeTerms,
        drawn: bool,
    ) -> Merge {
        let distance = distance(theirs, ours);
        let verdict =
            if self.rule.gate { judge(distance, terms.threshold) } else { Verdict::Accept(1.0) };
        let Verdict::Accept(clip) = verdict else {
            if terms.recover && distance.is_finite() {
                let pull = 0.5 * (2.0 * terms.threshold / distance).min(1.0);
                self.velocity.fill(0.0);
                self.shift(theirs, ours, pull);
                self.anchor.clone_from(&self.x);
            }
            return Merge { distance, accepted: false, trusted: 0.0, moved: 0.0 };
        };
        let trusted = if self.rule.filter {
            let trusted = self.filter.observe(peer, theirs);
            if trusted > 0.0 { trusted * self.try_out(peer, theirs, drawn) } else { 0.0 }
        } else {
            1.0
        };
        let moved = terms.weight * clip * trusted;
        self.shift(theirs, ours, moved);
        self.merged = true;
        Merge { distance, accepted: true, trusted, moved }
    }

    /// How much of its weight a partner's model keeps after a trial on our rows.
    fn try_out(&mut self, peer: NodeId, theirs: &[f32], drawn: bool) -> f64 {
        let batch = self.network.spec.training.batch as usize;
        let (model, rows) = (&self.network.model, Some(TRIAL_ROWS.min(batch)));
        let own = evaluate(model, &self.x, &self.holdout, rows, &mut self.space).loss;
        let found = evaluate(model, theirs, &self.holdout, rows, &mut self.space);
        self.tried = Some(found);
        if found.total == 0 {
            return 1.0;
        }
        let kept = self.trials.judge(peer, found.loss - own);
        if drawn {
            self.trials.observe(peer, found.loss - own);
        }
        kept
    }

    fn shift(&mut self, theirs: &[f32], ours: &[f32], weight: f64) {
        add_scaled_difference(&mut self.x, theirs, ours, weight as f32);
        add_scaled_difference(&mut self.base, theirs, ours, weight as f32);
    }

    fn finish(&mut self, age: f64) -> Done {
        let merged = core::mem::take(&mut self.merged);
        if !merged && self.idle_rounds < self.rule.idle_rounds_max {
            self.idle_rounds += 1;
        } else {
            self.idle_rounds = 0;
            if let Some(mut outer) = self.rule.outer {
                outer.rate *= if self.calm_rounds > 0 { 0.5 } else { 1.0 };
                outer.step(&mut self.x, &mut self.anchor, &mut self.velocity, self.update_norm);
            }
        }
        self.calm_rounds = self.calm_rounds.saturating_sub(1);
        // Finite values may add up to infinite ones where no gate keeps them apart.
        if first_non_finite(&self.x).is_some() {
            self.fall_back();
        }
        if self.schedule.serves(age) {
            self.served.update(&self.x);
        }
        Done::Finished { norm: norm(&self.x), diverged: core::mem::take(&mut self.diverged) }
    }

    fn snapshot(&self, codecs: Codecs) -> Encoded {
        let codec = self.network.snapshot_codec(codecs).unwrap_or(Codec::Fp32);
        let (slab, _) = write_relative(codec, &self.x, None);
        Encoded { codec, base: None, slab }
    }

    fn read_all(&self, models: &[Encoded]) -> Vec<Vec<f32>> {
        models.iter().filter_map(|model| read_relative(model, self.x.len(), None)).collect()
    }

    /// Nearest-neighbour mixing and trimmed mean of our model and `models`; how many of these are
    /// models.
    fn mix(&mut self, models: &[Encoded], trim: usize) -> usize {
        let decoded = self.read_all(models);
        let mut all: Vec<&[f32]> = decoded.iter().map(Vec::as_slice).collect();
        all.push(&self.x);
        let trim = trim.min((all.len() - 1) / 2);
        let near = nearest_neighbour_means(&all, all.len() - trim);
        let near: Vec<&[f32]> = near.iter().map(Vec::as_slice).collect();
        if let Some(mean) = trimmed_mean(&near, trim).filter(|_| !decoded.is_empty()) {
            let own = self.x.clone();
            self.shift(&mean, &own, 1.0);
            self.merged = true;
        }
        decoded.len()
    }

    /// Starts from the median of those `snapshots` that are not much farther from the genesis model
    /// than the lower half. Between as many honest models as turned ones a median is zero, where
    /// nothing learns; what all began from says which is which.
    fn adopt(&mut self, snapshots: &[Encoded]) -> usize {
        let decoded = self.read_all(snapshots);
        let genesis = self.network.genesis();
        let far = |model: &Vec<f32>| distance(model, &genesis);
        let usual = lower_median(decoded.iter().map(far)).unwrap_or_default();
        let near = decoded.iter().filter(|model| far(model) <= ADOPTED_FARTHER_MAX * usual);
        let models: Vec<&[f32]> = near.map(Vec::as_slice).collect();
        if let Some(median) = coordinate_median(&models).filter(|median| self.may_adopt(median)) {
            let velocity = vec![0.0; median.len()];
            let (anchor, served) = (median.clone(), median.clone());
            let references = Vec::new();
            self.restore(Vectors { x: median, anchor, velocity, served, references });
            return models.len();
        }
        0
    }

    /// Whether it may be a model of this task, and not one so long that no training leads away
    /// from it. What it loses on our rows is what training begins from: a model that has seen none
    /// of our classes is no sign of divergence.
    fn may_adopt(&mut self, params: &[f32]) -> bool {
        let guess = (self.network.spec.model.classes as f64).ln();
        let (model, rows) = (&self.network.model, Some(ADOPTED_ROWS));
        let found = evaluate(model, params, &self.holdout, rows, &mut self.space);
        let longest = ADOPTED_NORM_MAX * norm(&self.network.genesis());
        // A length that is no number fails the comparison.
        let fit = norm(params) <= longest;
        if fit && found.loss.is_finite() {
            self.usual_loss = found.loss.max(guess);
        }
        fit
    }
}

/// Encodes `values` relative to `reference`; also what the other end will decode.
fn write_relative(codec: Codec, values: &[f32], reference: Option<&[f32]>) -> (Vec<u8>, Vec<f32>) {
    let mut slab = Vec::new();
    let mut decoded: Vec<f32> = match reference {
        Some(reference) => values.iter().zip(reference).map(|(own, mid)| own - mid).collect(),
        None => values.to_vec(),
    };
    // It does not fail: `perform` restores values that are no numbers.
    if codec.encode(&mut decoded, &mut slab).is_ok() {
        add_reference(&mut decoded, reference);
    }
    (slab, decoded)
}

/// Decodes a partner's model; none if it is not one of ours in shape, or not finite.
fn read_relative(model: &Encoded, count: usize, reference: Option<&[f32]>) -> Option<Vec<f32>> {
    let mut decoded = Vec::new();
    model.codec.decode(&model.slab, count, &mut decoded).ok()?;
    if reference.is_some_and(|reference| reference.len() != count) {
        return None;
    }
    add_reference(&mut decoded, reference);
    first_non_finite(&decoded).is_none().then_some(decoded)
}

fn add_reference(decoded: &mut [f32], reference: Option<&[f32]>) {
    for (value, mid) in decoded.iter_mut().zip(reference.unwrap_or_default()) {
        *value += mid;
    }
}

#[cfg(test)]
mod tests;
