//! What a state directory survives.

use std::os::unix::fs::{PermissionsExt, symlink};

use super::*;

fn store() -> (tempfile::TempDir, Store) {
    let directory = tempfile::tempdir().expect("temporary directory");
    let store = Store::create(&directory.path().join("state")).expect("made");
    (directory, store)
}

fn read(bytes: &[u8]) -> Result<Vec<u8>, Unusable> {
    match bytes {
        [b'g', ..] => Ok(bytes.to_vec()),
        [b'f', ..] => Err(Unusable::Foreign),
        [b'v', ..] => Err(Unusable::Version("of version 9: use the one that wrote it".into())),
        _ => Err(Unusable::Damaged("bad bytes".into())),
    }
}

#[test]
fn a_checkpoint_of_another_network_stays_where_it_is() {
    let (_guard, store) = store();
    store.save_checkpoint(b"good").expect("saved");
    store.save_checkpoint(b"foreign").expect("saved");
    assert_eq!(store.load_checkpoint(read).expect_err("foreign").code, Code::Config);
    assert_eq!(store.generations(), Ok(vec![1, 2]));
}

#[test]
fn a_checkpoint_of_a_newer_starling_stays_where_it_is() {
    let (_guard, store) = store();
    store.save_checkpoint(b"good").expect("saved");
    store.save_checkpoint(b"version").expect("saved");
    let failure = store.load_checkpoint(read).expect_err("newer");
    assert_eq!(failure.code, Code::Config);
    let told = "ckpt-0000000000000002 is of version 9: use the one that wrote it, or move it";
    assert!(failure.message.contains(told), "{failure}");
    assert_eq!(store.generations(), Ok(vec![1, 2]));
    assert!(!store.has_bad());
}

#[test]
fn only_what_is_wrong_with_the_file_itself_is_damage() {
    let error = |errno: Errno| std::io::Error::from(errno);
    for errno in [Errno::ACCESS, Errno::PERM, Errno::MFILE, Errno::NOMEM, Errno::NOENT] {
        assert!(!is_damage(&error(errno)), "{errno}");
    }
    assert!(is_damage(&error(Errno::LOOP)) && is_damage(&error(Errno::IO)));
    assert!(is_damage(&std::io::Error::other("not a regular file")));
}

#[test]
fn keeps_three_generations_and_loads_the_newest_good_one() {
    let (_guard, store) = store();
    for index in 1..=5_u64 {
        let bytes = format!("good {index}");
        assert_eq!(store.save_checkpoint(bytes.as_bytes()), Ok(index));
    }
    assert_eq!(store.generations(), Ok(vec![3, 4, 5]));
    let newest = checkpoint_path(&store.path("checkpoints"), 5);
    fs::remove_file(&newest).expect("removed");
    symlink("/etc/passwd", &newest).expect("linked");
    fs::write(checkpoint_path(&store.path("checkpoints"), 4), "torn").expect("written");
    fs::write(store.path("checkpoints/.tmp-1-ckpt-0000000000000009"), "good").expect("written");
    fs::write(store.path("checkpoints/ckpt-9"), "good").expect("written");
    let loaded = store.load_checkpoint(read).expect("readable");
    assert_eq!(loaded.newest, Some((3, b"good 3".to_vec())));
    assert_eq!(loaded.bad.iter().map(|bad| bad.0).collect::<Vec<_>>(), [5, 4]);
    assert_eq!(store.generations(), Ok(vec![3]));
    assert_eq!(store.save_checkpoint(b"good"), Ok(4));
}

#[test]
fn a_failed_write_leaves_what_was_there() {
    let (_guard, store) = store();
    store.save_checkpoint(b"good 1").expect("saved");
    // Folders where a temporary file and a file are to be.
    let temporary = format!(".tmp-{}-ckpt-0000000000000002", std::process::id());
    fs::create_dir(store.path("checkpoints").join(temporary)).expect("in the way");
    assert_eq!(store.save_checkpoint(b"good 2").expect_err("in the way").code, Code::Io);
    assert_eq!(store.generations(), Ok(vec![1]));
    let loaded = store.load_checkpoint(read).expect("readable");
    assert_eq!(loaded.newest, Some((1, b"good 1".to_vec())));
    fs::create_dir(store.path("bans")).expect("in the way");
    assert_eq!(store.write("bans", b"one").expect_err("in the way").code, Code::Io);
    let entries = fs::read_dir(store.root()).expect("there").map(|entry| entry.expect("one"));
    let mut names: Vec<_> = entries.map(|entry| entry.file_name()).collect();
    names.sort();
    assert_eq!(names, ["bans", "checkpoints"], "nothing half written is left");
}

#[test]
fn whoever_takes_the_lock_removes_what_a_killed_one_was_writing() {
    let (guard, mut store) = store();
    store.save_checkpoint(b"good").expect("saved");
    let left = [".tmp-1-bans", "checkpoints/.tmp-1-ckpt-0000000000000002"];
    let kept = ["bans", ".tmp", "checkpoints/ckpt-0000000000000001"];
    for name in left.iter().chain(&kept) {
        fs::write(store.path(name), "x").expect("written");
    }
    let mut second = Store::open(store.root()).expect("there");
    store.lock().expect("free");
    assert!(left.iter().all(|name| !store.path(name).exists()));
    assert!(kept.iter().all(|name| store.path(name).exists()));

    // Not while another is at work, and never through a link.
    fs::write(store.path(left[0]), "x").expect("written");
    second.lock().expect_err("taken");
    assert!(store.path(left[0]).exists());
    drop(store);
    let elsewhere = guard.path().join("elsewhere");
    fs::rename(second.path("checkpoints"), &elsewhere).expect("moved");
    fs::write(elsewhere.join(".tmp-1-x"), "x").expect("written");
    symlink(&elsewhere, second.path("checkpoints")).expect("linked");
    second.lock().expect("free");
    assert!(!second.path(left[0]).exists() && elsewhere.join(".tmp-1-x").exists());
}

/// Puts the owner of another user on a folder, which only root can.
fn give_away(path: &Path) {
    let owner = rustix::process::geteuid().is_root().then_some(12345);
    std::os::unix::fs::chown(path, owner, owner).expect("given away");
}

#[test]
fn links_and_pipes_that_were_planted_are_neither_written_nor_given_away() {
    let (guard, mut store) = store();
    let (file, folder) = (guard.path().join("file"), guard.path().join("folder"));
    fs::write(&file, "mine").expect("written");
    fs::create_dir(&folder).expect("made");
    give_away(store.root());
    let own = fs::metadata(&file).expect("there").uid();

    symlink(&file, store.path("lock")).expect("linked");
    assert_eq!(store.lock().expect_err("a link").code, Code::Io);
    symlink(&folder, store.path("checkpoints")).expect("linked");
    assert_eq!(store.save_checkpoint(b"good").expect_err("a link").code, Code::Io);
    assert_eq!(fs::read_dir(&folder).expect("there").count(), 0);
    fs::remove_file(store.path("lock")).expect("removed");
    fs::hard_link(&file, store.path("lock")).expect("linked");
    store.lock().expect("a file like any other");

    let temporary = |name| store.path(&format!(".tmp-{}-{name}", std::process::id()));
    fs::hard_link(&file, temporary("boot")).expect("linked");
    assert_eq!(store.next_epoch(), Ok(1));
    assert_eq!(fs::read(&file).expect("there"), b"mine");
    rustix::fs::mknodat(CWD, temporary("bans"), rustix::fs::FileType::Fifo, Mode::RUSR, 0)
        .expect("a pipe");
    assert_eq!(store.write("bans", b"one"), Ok(()));

    for path in [&file, &folder] {
        assert_eq!(fs::metadata(path).expect("there").uid(), own, "{}", path.display());
    }
    let owner = fs::metadata(store.root()).expect("there").uid();
    assert_eq!(fs::metadata(store.path("bans")).expect("there").uid(), owner);
}

#[test]
fn a_linked_configuration_is_told_as_such() {
    let (guard, store) = store();
    let elsewhere = guard.path().join("elsewhere.toml");
    fs::write(&elsewhere, "").expect("written");
    symlink(&elsewhere, store.path("starling.toml")).expect("linked");
    let failure = store.read_text("starling.toml").expect_err("a link");
    assert_eq!(failure.code, Code::Config);
    assert!(failure.message.contains("starling.toml is a symbolic link"), "{failure}");
}

#[test]
fn the_key_is_private_and_stable() {
    let (_guard, store) = store();
    assert_eq!(store.identity(false).expect_err("none").code, Code::Permission);
    let id = store.identity(true).expect("made").id();
    assert_eq!(store.identity(false).expect("kept").id(), id);
    let path = store.path("identity.seed");
    assert_eq!(fs::metadata(&path).expect("there").mode() & 0o777, 0o600);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).expect("set");
    let failure = store.identity(false).expect_err("open to all");
    assert_eq!(failure.code, Code::Permission);
    assert!(failure.message.contains("0644") && failure.message.contains("chmod 600"));
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("set");
    fs::write(&path, [1; 31]).expect("written");
    assert_eq!(store.identity(false).expect_err("short").code, Code::Permission);
}

#[test]
fn boots_are_counted_and_one_process_holds_the_lock() {
    let (guard, mut store) = store();
    assert_eq!(store.next_epoch(), Ok(1));
    assert_eq!(store.next_epoch(), Ok(2));
    fs::write(store.path("boot"), "many").expect("written");
    assert_eq!(store.next_epoch().expect_err("no number").code, Code::Corrupt);
    store.lock().expect("free");
    let mut second = Store::open(&guard.path().join("state")).expect("there");
    assert_eq!(second.lock().expect_err("taken").code, Code::Temporary);
    drop(store);
    second.lock().expect("free again");
}
