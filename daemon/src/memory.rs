//! What this process takes of the machine's memory.

/// Bytes held now; none where Linux does not say.
pub fn now() -> Option<u64> {
    line("VmRSS:")
}

/// The most that was held at any time.
pub fn peak() -> Option<u64> {
    line("VmHWM:")
}

fn line(name: &str) -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    line.trim().strip_suffix(" kB")?.parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_peak_is_at_least_what_is_held_now() {
        let (now, peak) = (super::now().expect("Linux"), super::peak().expect("Linux"));
        assert!(now > 1 << 20 && peak >= now, "{now} {peak}");
    }
}
