//! The parameter vector: flat, with names for its parts.

/// One named tensor of a model, row-major.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorSpec {
    /// Dotted name, as in safetensors files.
    pub name: String,
    /// Lengths of the axes.
    pub shape: Vec<usize>,
}

impl TensorSpec {
    /// Number of values.
    #[must_use]
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// Whether the tensor has no values.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Where each tensor lies in the flat vector: one after the other, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout(Vec<TensorSpec>);

impl Layout {
    /// A layout of these tensors.
    #[must_use]
    pub fn new(tensors: Vec<TensorSpec>) -> Self {
        Self(tensors)
    }

    /// The tensors in order.
    #[must_use]
    pub fn tensors(&self) -> &[TensorSpec] {
        &self.0
    }

    /// Length of the flat vector.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.iter().map(TensorSpec::len).sum()
    }

    /// Whether there are no parameters.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Index of the first value that is no number or infinite.
#[must_use]
pub fn first_non_finite(values: &[f32]) -> Option<usize> {
    // Without an early exit it vectorises; the search, which hardly ever follows, does not.
    let finite = values.iter().fold(true, |all, value| all & value.is_finite());
    if finite { None } else { values.iter().position(|value| !value.is_finite()) }
}

/// Partial sums kept apart so that the compiler can use vector registers; the order of additions
/// is the same on every run.
const LANES: usize = 16;

/// Sum of `term` over two vectors of one length, each computed as f32 and added as f64.
pub(crate) fn sum_of(a: &[f32], b: &[f32], term: impl Fn(f32, f32) -> f64) -> f64 {
    let mut lanes = [0.0; LANES];
    let (a_chunks, a_rest) = a.as_chunks::<LANES>();
    let (b_chunks, b_rest) = b.as_chunks::<LANES>();
    for (a, b) in a_chunks.iter().zip(b_chunks) {
        for ((lane, a), b) in lanes.iter_mut().zip(a).zip(b) {
            *lane += term(*a, *b);
        }
    }
    for ((lane, a), b) in lanes.iter_mut().zip(a_rest).zip(b_rest) {
        *lane += term(*a, *b);
    }
    lanes.iter().sum()
}

/// Scalar product of two vectors of one length, accumulated in f64.
#[must_use]
pub fn dot(a: &[f32], b: &[f32]) -> f64 {
    sum_of(a, b, |a, b| f64::from(a) * f64::from(b))
}

/// First eight bytes of the BLAKE3 hash of the values as little-endian bytes. Names a pair
/// reference; it guards against mistakes, the envelope against malice.
#[must_use]
pub fn digest64(values: &[f32]) -> u64 {
    let mut hasher = blake3::Hasher::new();
    let mut bytes = [0; 4096];
    for block in values.chunks(1024) {
        for (place, value) in bytes.chunks_exact_mut(4).zip(block) {
            place.copy_from_slice(&value.to_le_bytes());
        }
        hasher.update(bytes.get(..4 * block.len()).unwrap_or_default());
    }
    let mut first = [0; 8];
    hasher.finalize_xof().fill(&mut first);
    u64::from_le_bytes(first)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tensors_follow_one_another() {
        let tensor = |name: &str, shape: &[usize]| TensorSpec {
            name: name.to_owned(),
            shape: shape.to_vec(),
        };
        let layout = Layout::new(vec![tensor("a", &[2, 3]), tensor("b", &[4])]);
        assert_eq!(layout.len(), 10);
    }

    #[test]
    fn finds_what_is_no_number() {
        assert_eq!(first_non_finite(&[0.0, -1e38, 3.0e38]), None);
        assert_eq!(first_non_finite(&[0.0, f32::NAN]), Some(1));
        assert_eq!(first_non_finite(&[f32::NEG_INFINITY, 0.0]), Some(0));
    }

    #[test]
    fn products_are_summed_to_the_last_term() {
        let values: Vec<f32> = (0..100_u8).map(f32::from).collect();
        assert_eq!(dot(&values, &[2.0; 100]), 9900.0);
    }

    #[test]
    fn the_digest_is_that_of_the_little_endian_bytes() {
        let values: Vec<f32> = (0..3000_u16).map(f32::from).collect();
        let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        let hash = blake3::hash(&bytes);
        assert_eq!(digest64(&values).to_le_bytes(), hash.as_bytes()[..8]);
    }
}
