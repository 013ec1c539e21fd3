//! Models: what they compute from parameters and rows, and the gradient of it.
//!
//! One family for now: a multilayer perceptron with rectified hidden layers and a softmax output;
//! without hidden layers it is softmax regression. Buffers live in a [`Workspace`] that a thread
//! keeps, so a step allocates nothing.

use ndarray::linalg::general_mat_mul;
use ndarray::{ArrayView2, ArrayViewMut2};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use crate::params::{Layout, TensorSpec};

/// Most features a row may have.
pub const FEATURES_MAX: usize = 65_536;
/// Most hidden layers.
pub const HIDDEN_LAYERS_MAX: usize = 8;
/// Most units of a hidden layer.
pub const WIDTH_MAX: usize = 16_384;
/// Most classes.
pub const CLASSES_MAX: usize = 4096;
/// Most parameters: 256 MiB as fp32.
pub const PARAMETERS_MAX: usize = 64 * 1024 * 1024;

/// A model as a network specification names it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelSpec {
    /// Values per row.
    pub features: usize,
    /// Units of each hidden layer; empty for softmax regression.
    pub hidden: Vec<usize>,
    /// Classes to tell apart.
    pub classes: usize,
}

/// A specification out of bounds.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("model.{field}: found {found}, expected {expected}")]
pub struct ModelError {
    /// Which field.
    pub field: &'static str,
    /// What it held.
    pub found: usize,
    /// What is allowed.
    pub expected: String,
}

impl ModelSpec {
    /// Checks every bound.
    ///
    /// # Errors
    /// The first field that is out of bounds.
    pub fn check(&self) -> Result<(), ModelError> {
        let within = |field, found: usize, low: usize, high: usize| {
            if (low..=high).contains(&found) {
                Ok(())
            } else {
                Err(ModelError { field, found, expected: format!("{low} to {high}") })
            }
        };
        within("features", self.features, 1, FEATURES_MAX)?;
        within("classes", self.classes, 2, CLASSES_MAX)?;
        within("hidden (number of layers)", self.hidden.len(), 0, HIDDEN_LAYERS_MAX)?;
        for width in &self.hidden {
            within("hidden", *width, 1, WIDTH_MAX)?;
        }
        within("parameters", self.layout().len(), 1, PARAMETERS_MAX)
    }

    /// The model.
    ///
    /// # Errors
    /// As [`ModelSpec::check`].
    pub fn model(&self) -> Result<Model, ModelError> {
        self.check()?;
        let mut layers = Vec::with_capacity(self.hidden.len() + 1);
        let mut start = 0;
        for (inputs, outputs) in self.widths() {
            layers.push(Layer { start, inputs, outputs });
            start += (inputs + 1) * outputs;
        }
        Ok(Model { spec: self.clone(), layout: self.layout(), layers })
    }

    fn widths(&self) -> impl Iterator<Item = (usize, usize)> {
        let inputs = core::iter::once(self.features).chain(self.hidden.iter().copied());
        let outputs = self.hidden.iter().copied().chain(core::iter::once(self.classes));
        inputs.zip(outputs)
    }

    fn layout(&self) -> Layout {
        let tensors = self.widths().enumerate().flat_map(|(index, (inputs, outputs))| {
            let name = |part: &str| format!("layer{index}.{part}");
            let tensor = |part: &str, shape| TensorSpec { name: name(part), shape };
            [tensor("weight", vec![inputs, outputs]), tensor("bias", vec![outputs])]
        });
        Layout::new(tensors.collect())
    }
}

/// Weights `[inputs, outputs]` at `start`, then biases.
#[derive(Clone, Copy, Debug)]
struct Layer {
    start: usize,
    inputs: usize,
    outputs: usize,
}

impl Layer {
    fn weights<'a>(&self, params: &'a [f32]) -> ArrayView2<'a, f32> {
        let values = &params[self.start..self.start + self.inputs * self.outputs];
        ArrayView2::from_shape((self.inputs, self.outputs), values)
            .unwrap_or_else(|_| unreachable_shape())
    }

    fn biases<'a>(&self, params: &'a [f32]) -> &'a [f32] {
        let start = self.start + self.inputs * self.outputs;
        &params[start..start + self.outputs]
    }
}

/// Shapes are computed from one specification, so a mismatch is a defect, never bad input.
fn unreachable_shape<T>() -> T {
    unreachable!("buffers are sliced to the shape they are viewed as")
}

fn matrix(values: &[f32], rows: usize, columns: usize) -> ArrayView2<'_, f32> {
    ArrayView2::from_shape((rows, columns), &values[..rows * columns])
        .unwrap_or_else(|_| unreachable_shape())
}

fn matrix_mut(values: &mut [f32], rows: usize, columns: usize) -> ArrayViewMut2<'_, f32> {
    ArrayViewMut2::from_shape((rows, columns), &mut values[..rows * columns])
        .unwrap_or_else(|_| unreachable_shape())
}

/// Buffers for one model and batch size; grows to the largest batch it sees.
#[derive(Clone, Debug, Default)]
pub struct Workspace {
    /// Output of each layer, `rows x outputs`.
    outputs: Vec<Vec<f32>>,
    /// Gradient by the output of each layer.
    deltas: Vec<Vec<f32>>,
    gradient: Vec<f32>,
}

impl Workspace {
    /// The gradient left by [`Model::loss_gradient`], as long as the parameters.
    #[must_use]
    pub fn gradient(&self) -> &[f32] {
        &self.gradient
    }

    fn fit(&mut self, model: &Model, rows: usize, with_gradient: bool) {
        self.outputs.resize_with(model.layers.len(), Vec::new);
        for (layer, output) in model.layers.iter().zip(&mut self.outputs) {
            if output.len() < rows * layer.outputs {
                output.resize(rows * layer.outputs, 0.0);
            }
        }
        if with_gradient {
            self.gradient.resize(model.len(), 0.0);
            self.deltas.resize_with(model.layers.len(), Vec::new);
            for (layer, delta) in model.layers.iter().zip(&mut self.deltas) {
                if delta.len() < rows * layer.outputs {
                    delta.resize(rows * layer.outputs, 0.0);
                }
            }
        }
    }
}

/// A model without its parameters.
#[derive(Clone, Debug)]
pub struct Model {
    spec: ModelSpec,
    layout: Layout,
    layers: Vec<Layer>,
}

impl Model {
    /// Its specification.
    #[must_use]
    pub fn spec(&self) -> &ModelSpec {
        &self.spec
    }

    /// Names and places of its parameters.
    #[must_use]
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Number of parameters.
    #[must_use]
    pub fn len(&self) -> usize {
        self.layers.last().map_or(0, |last| last.start + (last.inputs + 1) * last.outputs)
    }

    /// Never: the smallest model has four parameters.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The same starting parameters on every machine for one seed: uniform within
    /// `sqrt(6 / (inputs + outputs))` (Glorot and Bengio, 2010), biases zero.
    #[must_use]
    pub fn genesis(&self, seed: u64) -> Vec<f32> {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut params = vec![0.0; self.len()];
        for layer in &self.layers {
            let bound = libm::sqrt(6.0 / (layer.inputs + layer.outputs) as f64);
            let weights = &mut params[layer.start..layer.start + layer.inputs * layer.outputs];
            for weight in weights {
                // 24 bits give every f32 step in [0, 1); the product is rounded once.
                let unit = f64::from(rng.random::<u32>() >> 8) / f64::from(1 << 24);
                *weight = ((2.0 * unit - 1.0) * bound) as f32;
            }
        }
        params
    }

    /// Logits of `rows` (`n x features`, row-major) as `n x classes` in the workspace.
    #[must_use]
    pub fn predict<'w>(&self, params: &[f32], rows: &[f32], space: &'w mut Workspace) -> &'w [f32] {
        let count = rows.len() / self.spec.features;
        space.fit(self, count, false);
        self.forward(params, rows, count, space);
        space.outputs.last().map_or(&[], |logits| &logits[..count * self.spec.classes])
    }

    fn forward(&self, params: &[f32], rows: &[f32], count: usize, space: &mut Workspace) {
        for (index, layer) in self.layers.iter().enumerate() {
            let (before, from) = space.outputs.split_at_mut(index);
            let input = before.last().map_or(rows, |hidden| hidden);
            let output = &mut from[0][..count * layer.outputs];
            for row in output.chunks_exact_mut(layer.outputs) {
                row.copy_from_slice(layer.biases(params));
            }
            let mut product = matrix_mut(output, count, layer.outputs);
            let input = matrix(input, count, layer.inputs);
            general_mat_mul(1.0, &input, &layer.weights(params), 1.0, &mut product);
            if index + 1 < self.layers.len() {
                for value in output {
                    *value = value.max(0.0);
                }
            }
        }
    }

    /// Mean cross-entropy of `labels` over `rows`; its gradient by the parameters is left in the
    /// workspace.
    #[must_use]
    pub fn loss_gradient(
        &self,
        params: &[f32],
        rows: &[f32],
        labels: &[u16],
        space: &mut Workspace,
    ) -> f64 {
        let count = labels.len();
        space.fit(self, count, true);
        self.forward(params, rows, count, space);
        let last = self.layers.len() - 1;
        let loss = softmax_delta(
            &space.outputs[last][..count * self.spec.classes],
            labels,
            &mut space.deltas[last],
        );
        for index in (0..self.layers.len()).rev() {
            self.backward(index, params, rows, count, space);
        }
        loss
    }

    /// Gradient of one layer's parameters from its delta, and the delta of the layer before.
    fn backward(
        &self,
        index: usize,
        params: &[f32],
        rows: &[f32],
        count: usize,
        space: &mut Workspace,
    ) {
        let layer = self.layers[index];
        let (deltas_before, deltas) = space.deltas.split_at_mut(index);
        let delta = &deltas[0][..count * layer.outputs];
        let input = index.checked_sub(1).map_or(rows, |before| &space.outputs[before]);
        let input = matrix(input, count, layer.inputs);
        let end = layer.start + (layer.inputs + 1) * layer.outputs;
        let (weights, biases) =
            space.gradient[layer.start..end].split_at_mut(layer.inputs * layer.outputs);
        let mut product = matrix_mut(weights, layer.inputs, layer.outputs);
        let delta_matrix = matrix(delta, count, layer.outputs);
        general_mat_mul(1.0, &input.t(), &delta_matrix, 0.0, &mut product);
        biases.fill(0.0);
        for row in delta.chunks_exact(layer.outputs) {
            for (bias, value) in biases.iter_mut().zip(row) {
                *bias += value;
            }
        }
        if let Some(before) = deltas_before.last_mut() {
            let mut product = matrix_mut(before, count, layer.inputs);
            general_mat_mul(1.0, &delta_matrix, &layer.weights(params).t(), 0.0, &mut product);
            // The derivative of a rectifier: nothing flows back where it was off.
            let active = &space.outputs[index - 1];
            for (value, output) in before.iter_mut().zip(active).take(count * layer.inputs) {
                if *output <= 0.0 {
                    *value = 0.0;
                }
            }
        }
    }
}

/// Mean cross-entropy of softmax(`logits`) against `labels`, and its gradient by the logits.
fn softmax_delta(logits: &[f32], labels: &[u16], delta: &mut [f32]) -> f64 {
    let count = labels.len().max(1);
    let classes = logits.len() / count;
    let scale = 1.0 / count as f32;
    let mut loss = 0.0;
    for ((logits, delta), label) in
        logits.chunks_exact(classes).zip(delta.chunks_exact_mut(classes)).zip(labels)
    {
        let top = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let own = logits.get(usize::from(*label)).copied().unwrap_or(f32::NEG_INFINITY);
        let mut sum = 0.0;
        for (value, logit) in delta.iter_mut().zip(logits) {
            *value = (logit - top).exp();
            sum += *value;
        }
        loss += f64::from(sum.ln() - (own - top));
        for value in delta.iter_mut() {
            *value *= scale / sum;
        }
        if let Some(value) = delta.get_mut(usize::from(*label)) {
            *value -= scale;
        }
    }
    loss / count as f64
}

/// `-ln softmax(logits)[label]`, computed without overflow.
#[must_use]
pub fn cross_entropy(logits: &[f32], label: u16) -> f64 {
    let top = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f32 = logits.iter().map(|logit| (logit - top).exp()).sum();
    let own = logits.get(usize::from(label)).copied().unwrap_or(f32::NEG_INFINITY);
    f64::from(sum.ln() - (own - top))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn small() -> Model {
        let spec = ModelSpec { features: 5, hidden: vec![7, 4], classes: 3 };
        spec.model().expect("in bounds")
    }

    fn rows(count: usize) -> (Vec<f32>, Vec<u16>) {
        let mut rng = ChaCha8Rng::seed_from_u64(3);
        let rows = (0..5 * count).map(|_| rng.random_range(-1.0..1.0)).collect();
        (rows, (0..count).map(|index| (index % 3) as u16).collect())
    }

    #[test]
    fn names_and_counts_its_parameters() {
        let model = small();
        assert_eq!(model.len(), 6 * 7 + 8 * 4 + 5 * 3);
        assert_eq!(model.layout().len(), model.len());
    }

    #[test]
    fn the_gradient_is_the_slope_of_the_loss() {
        let (model, (rows, labels)) = (small(), rows(6));
        let params = model.genesis(1);
        let mut space = Workspace::default();
        let _ = model.loss_gradient(&params, &rows, &labels, &mut space);
        let gradient = space.gradient().to_vec();
        for index in 0..model.len() {
            let mut loss_at = |shift: f32| {
                let mut moved = params.clone();
                moved[index] += shift;
                model.loss_gradient(&moved, &rows, &labels, &mut space)
            };
            let slope = (loss_at(1e-2) - loss_at(-1e-2)) / 2e-2;
            let error = (slope - f64::from(gradient[index])).abs();
            assert!(error < 2e-3, "{index}: {slope} {}", gradient[index]);
        }
    }

    #[test]
    fn starting_parameters_are_golden() {
        let params = small().genesis(7);
        let first: Vec<u32> = params.iter().take(3).map(|value| value.to_bits()).collect();
        assert_eq!(first, [0xbf02_552c, 0xbef7_c838, 0xbee6_377c]);
        assert_eq!(crate::params::digest64(&params), 10_946_674_297_117_968_256);
        assert!(params[35..42].iter().all(|bias| *bias == 0.0));
    }

    #[test]
    fn a_larger_batch_after_a_smaller_one_changes_nothing() {
        let (model, (rows, labels)) = (small(), rows(9));
        let params = model.genesis(1);
        let mut space = Workspace::default();
        let alone = model.loss_gradient(&params, &rows[..10], &labels[..2], &mut space);
        let _ = model.loss_gradient(&params, &rows, &labels, &mut space);
        let again = model.loss_gradient(&params, &rows[..10], &labels[..2], &mut space);
        assert_eq!(alone, again);
        assert_eq!(model.predict(&params, &rows, &mut space).len(), 27);
    }

    #[test]
    fn specifications_are_bounded() {
        let spec = |features, hidden: &[usize], classes| ModelSpec {
            features,
            hidden: hidden.to_vec(),
            classes,
        };
        for wrong in [
            spec(0, &[], 2),
            spec(FEATURES_MAX + 1, &[], 2),
            spec(4, &[], 1),
            spec(4, &[0], 2),
            spec(4, &[3; HIDDEN_LAYERS_MAX + 1], 2),
            spec(4, &[WIDTH_MAX + 1], 2),
            spec(FEATURES_MAX, &[WIDTH_MAX], 2),
            spec(usize::MAX, &[], 2),
        ] {
            assert!(wrong.model().is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn cross_entropy_survives_large_logits() {
        assert!((cross_entropy(&[1000.0, 0.0], 1) - 1000.0).abs() < 1e-3);
        assert!(cross_entropy(&[1000.0, 0.0], 0).abs() < 1e-6);
    }
}
