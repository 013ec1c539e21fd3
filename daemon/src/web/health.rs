//! Whether the node lives, and whether it does its work.

use std::path::Path;
use std::time::Duration;

use rustix::fs::{Access, access, statvfs};
use serde_json::{Value, json};

/// The driver publishes once a second; a machine that is busy may take its time.
const STATUS_AGE_MAX: Duration = Duration::from_secs(10);

fn check(ok: bool, detail: impl Into<Value>) -> Value {
    json!({"ok": ok, "detail": detail.into()})
}

/// Whether the driver goes round.
pub(super) fn alive(age: Duration) -> (bool, Value) {
    let ok = age <= STATUS_AGE_MAX;
    (ok, json!({"alive": ok, "status_age_s": age.as_secs_f64()}))
}

/// Whether the node does what it is there for, and which check says no.
pub(super) fn ready(age: Duration, status: &Value, directory: &Path) -> (bool, Value) {
    let (alive, _) = alive(age);
    let truth = |key: &str| status.get(key).and_then(Value::as_bool).unwrap_or_default();
    let listening = truth("ready");
    let writable = access(directory, Access::WRITE_OK).is_ok();
    let saves = !truth("degraded");
    let obstacle = status.get("obstacle").and_then(Value::as_str);
    let storage = match (writable, saves) {
        (false, _) => "the state directory cannot be written",
        (true, false) => "the last checkpoint could not be saved",
        (true, true) => "checkpoints can be saved",
    };
    let ok = alive && listening && writable && saves && obstacle.is_none();
    let checks = json!({
        "alive": check(alive, age.as_secs_f64()),
        "listening": check(listening, status.get("addresses").cloned().unwrap_or_default()),
        "storage": check(writable && saves, storage),
        "mesh": check(obstacle.is_none(), obstacle.unwrap_or("as many peers as needed")),
    });
    (ok, json!({"ready": ok, "checks": checks}))
}

/// Bytes that checkpoints may still take.
pub(super) fn free_bytes(directory: &Path) -> Option<u64> {
    let disk = statvfs(directory).ok()?;
    Some(disk.f_bavail.saturating_mul(disk.f_frsize))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_check_alone_makes_a_node_unready() {
        let folder = tempfile::tempdir().unwrap();
        let (now, here) = (Duration::ZERO, folder.path());
        let well = json!({"ready": true, "degraded": false, "obstacle": null, "addresses": []});
        assert!(ready(now, &well, here).0);
        let with = |key: &str, value: Value| {
            let mut status = well.clone();
            status[key] = value;
            status
        };
        let failing = |age, status: &Value, directory: &Path| {
            let (ok, body) = ready(age, status, directory);
            assert!(!ok && body["ready"] == false, "{body}");
            let checks = body["checks"].as_object().unwrap().iter();
            let failed = checks.filter(|(_, check)| check["ok"] == false);
            failed.map(|(name, _)| name.clone()).collect::<Vec<_>>()
        };
        assert_eq!(failing(STATUS_AGE_MAX * 2, &well, here), ["alive"]);
        assert_eq!(failing(now, &with("ready", false.into()), here), ["listening"]);
        assert_eq!(failing(now, &with("degraded", true.into()), here), ["storage"]);
        assert_eq!(failing(now, &well, &here.join("gone")), ["storage"]);
        assert_eq!(failing(now, &with("obstacle", "isolated".into()), here), ["mesh"]);
        assert_eq!(failing(now, &json!({}), here), ["listening"]);
    }
}
