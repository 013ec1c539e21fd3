//! The gate: how much of a partner's difference is taken, by its length alone. Clipping without
//! rejection does not stop a sign-flipping attacker under momentum; rejection does.

/// What becomes of a difference.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Verdict {
    /// Taken, scaled by this factor: 1 within the threshold, less beyond it.
    Accept(f64),
    /// Not taken: longer than twice the threshold, or no number.
    Reject,
}

/// Judges a difference of length `distance` against the usual length `threshold`.
#[must_use]
pub fn judge(distance: f64, threshold: f64) -> Verdict {
    if !distance.is_finite() || distance > 2.0 * threshold {
        Verdict::Reject
    } else if distance > threshold {
        Verdict::Accept(threshold / distance)
    } else {
        Verdict::Accept(1.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_clips_and_rejects() {
        assert_eq!(judge(1.0, 1.0), Verdict::Accept(1.0));
        assert_eq!(judge(2.0, 1.0), Verdict::Accept(0.5));
        assert_eq!(judge(2.1, 1.0), Verdict::Reject);
        assert_eq!(judge(f64::NAN, 1.0), Verdict::Reject);
        assert_eq!(judge(f64::INFINITY, f64::INFINITY), Verdict::Reject);
        assert_eq!(judge(0.0, 0.0), Verdict::Accept(1.0));
    }
}
