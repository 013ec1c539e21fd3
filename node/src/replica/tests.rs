//! What becomes of the weights when all goes wrong, and the outer step.

use std::sync::Arc;

use starling_learning::data::digits::digits;
use starling_learning::mix::outer::OuterRule;
use starling_learning::model::ModelSpec;
use starling_protocol::id::Keypair;

use super::*;
use crate::spec::{FeatureSpec, Membership, NetworkSpec, TrainingSpec};

/// `ln 10`, times four.
const DIVERGED_FROM: f64 = 9.2103;

fn replica() -> Replica {
    let spec = NetworkSpec {
        version: 1,
        name: "replica".into(),
        genesis_seed: 1,
        codecs: Codec::ALL.to_vec(),
        membership: Membership::Open,
        root: Keypair::from_seed(&[1; 32]).id(),
        model: ModelSpec { features: 64, hidden: vec![8], classes: 10 },
        training: TrainingSpec { rate: 0.1, momentum: 0.0, batch: 8, age_max: None },
        features: FeatureSpec::default(),
    };
    let (train, _) = digits().expect("embedded");
    let shard = Shard::new(Arc::new(train), (0..100).collect()).expect("in range");
    Replica::new(&spec.check().expect("in bounds"), &shard, &Settings::default(), 7)
}

/// A round of one step; how far its end moved the model.
fn round(replica: &mut Replica) -> f64 {
    replica.begin_round();
    let loss = replica.train_step(0.0);
    replica.end_training(loss);
    let before = replica.x.clone();
    replica.finish(0.0);
    distance(&before, &replica.x)
}

#[test]
fn the_outer_step_is_left_out_for_four_rounds_without_a_merge_and_then_taken() {
    let mut replica = replica();
    for turn in 0..3 {
        let moved = [(); 5].map(|()| round(&mut replica));
        assert_eq!(moved[..4], [0.0; 4], "turn {turn}");
        assert!(moved[4] > 0.0, "turn {turn}");
    }
    for _ in 0..3 {
        replica.merged = true;
        assert!(round(&mut replica) > 0.0, "a merge is a reason");
    }
    assert_eq!([(); 4].map(|()| round(&mut replica)), [0.0; 4]);
}

/// A replica that has a served model of its own and momentum.
fn running() -> Replica {
    let mut replica = replica();
    for _ in 0..10 {
        replica.merged = true;
        round(&mut replica);
    }
    assert!(norm(&replica.velocity) > 0.0);
    replica.usual_loss = DIVERGED_FROM / DIVERGED;
    replica
}

fn told(replica: &mut Replica) -> bool {
    matches!(replica.finish(0.0), Done::Finished { diverged: true, .. })
}

#[test]
fn a_loss_of_four_times_the_usual_or_none_restores_the_served_model() {
    for loss in [f64::NAN, f64::INFINITY, DIVERGED_FROM + 0.01] {
        let mut replica = running();
        let served = replica.served().to_vec();
        assert!(distance(&served, replica.params()) > 0.0);
        replica.begin_round();
        replica.train_step(0.0);
        assert_eq!(replica.end_training(loss), DIVERGED_FROM / DIVERGED, "{loss} is not told");
        assert_eq!(replica.params(), served, "{loss}");
        assert_eq!((norm(&replica.velocity), &replica.anchor), (0.0, &served));
        assert!(told(&mut replica) && !told(&mut replica), "{loss} is told once");
    }
    let mut replica = running();
    replica.begin_round();
    replica.train_step(0.0);
    let before = replica.params().to_vec();
    assert_eq!(replica.end_training(DIVERGED_FROM - 0.01), DIVERGED_FROM - 0.01);
    assert_eq!(replica.params(), before);
    assert!(!told(&mut replica));
}

/// How far the outer step goes on from where a round ended, in lengths of that round.
fn outer_step(replica: &mut Replica) -> f64 {
    let (length, count) = (0.001, replica.x.len() as f64);
    replica.velocity.fill(0.0);
    replica.anchor.clone_from(&replica.x);
    replica.x.iter_mut().for_each(|value| *value += length);
    replica.update_norm = 1.0;
    replica.merged = true;
    let before = replica.anchor.clone();
    replica.finish(0.0);
    distance(&before, &replica.x) / (f64::from(length) * count.sqrt())
}

#[test]
fn after_it_diverged_the_outer_step_is_half_as_long_for_fifty_rounds() {
    let mut replica = running();
    let OuterRule { momentum, rate, .. } = replica.rule.outer.expect("the default has one");
    let full = rate * (1.0 + momentum);
    assert!((outer_step(&mut replica) / full - 1.0).abs() < 0.01);
    replica.end_training(f64::NAN);
    for round in 0..50 {
        let share = outer_step(&mut replica) / full;
        assert!((share - 0.5).abs() < 0.01, "round {round}: {share}");
    }
    assert!((outer_step(&mut replica) / full - 1.0).abs() < 0.01);
}

#[test]
fn what_is_no_number_never_reaches_the_served_model() {
    for poison in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let mut replica = running();
        let served = replica.served().to_vec();
        // In the middle of a round, as from an overflow in a merge.
        replica.x[3] = poison;
        replica.merged = true;
        assert!(told(&mut replica), "{poison}");
        assert_eq!(first_non_finite(replica.served()), None, "{poison}");
        let moved = distance(&served, replica.served()) / norm(&served);
        assert!(moved < 1e-6, "{poison} moved what is served by {moved}");
        // From training itself.
        replica.x[3] = poison;
        replica.end_training(1.0);
        assert_eq!(first_non_finite(replica.params()), None, "{poison}");
        // Of the momentum.
        replica.velocity[3] = poison;
        replica.merged = true;
        replica.finish(0.0);
        let all = [replica.params(), replica.served()];
        assert_eq!(all.map(first_non_finite), [None, None], "{poison}");
    }
}

#[test]
fn what_is_no_number_between_two_steps_reaches_no_peer_and_no_checkpoint() {
    let (mut replica, peer) = (running(), NodeId([9; 32]));
    let request = {
        let mut slab = Vec::new();
        Codec::Fp32.encode(&mut replica.x.clone(), &mut slab).expect("finite");
        Encoded { codec: Codec::Fp32, base: None, slab }
    };
    replica.begin_round();
    replica.train_step(0.0);
    replica.x[3] = f32::NAN;
    let (terms, score, codecs) = (None, false, Codecs::ALL);
    let answer = replica.perform(Job::Answer { peer, request, terms, score, codecs });
    let Some(Done::Answered { reply, .. }) = answer else { panic!("{answer:?}") };
    assert!(!reply.slab.is_empty());
    let Some(Done::Checkpoint(bytes)) = replica.perform(Job::Checkpoint { standing: Vec::new() })
    else {
        panic!("no checkpoint")
    };
    let read = checkpoint::decode(&bytes, replica.network.id, replica.x.len());
    assert_eq!(read.expect("readable").vectors.x, replica.served());
    assert!(told(&mut replica), "and it is told at the end of the round");
}

#[test]
fn a_step_that_was_no_number_leaves_no_momentum() {
    let mut replica = replica();
    replica.network.spec.training.momentum = 0.9;
    replica.trainer = Trainer::new(replica.holdout.clone(), 8, 0.9, 1);
    replica.begin_round();
    // The bias of the last class: the gradient is no number either.
    *replica.x.last_mut().expect("parameters") = f32::NAN;
    let loss = replica.train_step(0.0);
    replica.end_training(loss);
    replica.train_step(0.0);
    assert_eq!(first_non_finite(replica.params()), None);
}

#[test]
fn a_poisoned_model_is_not_adopted() {
    let mut replica = replica();
    let before = replica.clone();
    let snapshot = |value: f32| {
        let mut values = vec![value; before.x.len()];
        let mut slab = Vec::new();
        Codec::Fp32.encode(&mut values, &mut slab).expect("finite");
        Encoded { codec: Codec::Fp32, base: None, slab }
    };
    // Equal weights guess, however large they are; but no training leads away from large ones.
    for value in [f32::MAX, 1e30, 1e10, 1e4, 100.0] {
        assert_eq!(replica.adopt(&[snapshot(value)]), 0, "{value}");
        assert_eq!(replica.params(), before.params());
        assert_eq!(replica.served(), before.served());
    }
    // Two of three that lie decide what is in the middle; it is looked at all the same.
    let three = [snapshot(0.1), snapshot(f32::MAX), snapshot(f32::MAX)];
    assert_eq!(replica.adopt(&three), 0);
    assert_eq!(replica.params(), before.params());
    let three = [snapshot(0.1), snapshot(0.2), snapshot(f32::MAX)];
    assert_eq!(replica.adopt(&three), 2);
    assert!(replica.params().iter().all(|value| (value - 0.15).abs() < 1e-6));
}

#[test]
fn as_many_turned_models_as_honest_ones_do_not_make_the_median_zero() {
    let mut replica = replica();
    let genesis = replica.network.genesis();
    let snapshot = |scale: f32| {
        let mut values: Vec<f32> = genesis.iter().map(|value| scale * value).collect();
        let mut slab = Vec::new();
        Codec::Fp32.encode(&mut values, &mut slab).expect("finite");
        Encoded { codec: Codec::Fp32, base: None, slab }
    };
    let four = [-1.1, 1.1, -1.2, 1.2].map(snapshot);
    assert_eq!(replica.adopt(&four), 2);
    for (value, from) in replica.params().iter().zip(&genesis) {
        assert!((value - 1.15 * from).abs() < 1e-5, "{value} {from}");
    }
}
