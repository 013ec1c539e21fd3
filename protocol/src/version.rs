//! Versions of the wire format.

/// The oldest version this build speaks.
pub const MIN: u16 = 1;
/// The newest version this build speaks.
///
/// * 1: 176-byte header, control part (fixed-width little-endian integers), raw model slab.
pub const MAX: u16 = 1;

/// The version two builds use: the newest both speak, if any.
#[must_use]
pub fn negotiate(peer_min: u16, peer_max: u16) -> Option<u16> {
    let version = MAX.min(peer_max);
    (version >= MIN && version >= peer_min).then_some(version)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_common_version_or_none() {
        assert_eq!(negotiate(1, 1), Some(1));
        assert_eq!(negotiate(1, 9), Some(MAX));
        assert_eq!(negotiate(MAX + 1, MAX + 3), None);
        assert_eq!(negotiate(0, 0), None);
        assert_eq!(negotiate(3, 1), None);
    }
}
