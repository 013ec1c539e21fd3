//! How good a model is on rows it did not train on.

use crate::data::Shard;
use crate::model::{Model, Workspace, cross_entropy};

/// Rows scored at a time: bounds the buffers.
const CHUNK: usize = 256;

/// What an evaluation found.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Evaluation {
    /// Rows classified correctly.
    pub correct: u32,
    /// Rows scored.
    pub total: u32,
    /// Mean cross-entropy.
    pub loss: f64,
}

impl Evaluation {
    /// Share of rows classified correctly; zero if none was scored.
    #[must_use]
    pub fn accuracy(&self) -> f64 {
        if self.total == 0 { 0.0 } else { f64::from(self.correct) / f64::from(self.total) }
    }
}

/// Scores `params` on the first `rows_max` rows of `shard`, all by default.
#[must_use]
pub fn evaluate(
    model: &Model,
    params: &[f32],
    shard: &Shard,
    rows_max: Option<usize>,
    space: &mut Workspace,
) -> Evaluation {
    let count = u32::try_from(shard.len().min(rows_max.unwrap_or(usize::MAX))).unwrap_or(u32::MAX);
    let positions: Vec<u32> = (0..count).collect();
    let (mut rows, mut labels) = (Vec::new(), Vec::new());
    let mut found = Evaluation { total: count, ..Evaluation::default() };
    for chunk in positions.chunks(CHUNK) {
        shard.gather(chunk, &mut rows, &mut labels);
        let logits = model.predict(params, &rows, space);
        for (logits, label) in logits.chunks_exact(model.spec().classes).zip(&labels) {
            found.loss += cross_entropy(logits, *label);
            found.correct += u32::from(top_class(logits) == *label);
        }
    }
    found.loss /= f64::from(count.max(1));
    found
}

/// The class with the largest logit, the first of equals.
#[must_use]
pub fn top_class(logits: &[f32]) -> u16 {
    let (mut top, mut best) = (0, f32::NEG_INFINITY);
    for (class, logit) in logits.iter().enumerate() {
        if *logit > best {
            (top, best) = (class, *logit);
        }
    }
    u16::try_from(top).unwrap_or(u16::MAX)
}
