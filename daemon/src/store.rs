//! The state directory: the only code that writes files.
//!
//! ```text
//! starling.toml        configuration            identity.seed   the node's key, mode 0600
//! network.toml         what the network is      membership      chain of certificates
//! boot                 how often it started     lock            held while a daemon runs
//! contacts             members to dial          control.sock    where `starling status` asks
//! bans                 whom the operator banned ports           where it listened last
//! checkpoints/ckpt-%016x   the newest three     bad/            those that could not be read
//! ```
//! A file appears whole or not at all: it is written under a temporary name, synced, renamed, and
//! its directory synced. A temporary file is never read, and whoever takes the lock removes those
//! that are left. What root writes belongs to the owner of the directory, as whom the daemon runs.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Dir, FlockOperation, Mode, OFlags, flock, openat, unlinkat};
use rustix::io::Errno;
use starling_protocol::id::Keypair;
use zeroize::Zeroizing;

use crate::exit::{Code, Failure};

/// How the names of temporary files begin.
const TEMPORARY: &str = ".tmp-";
/// Checkpoints kept.
const GENERATIONS: usize = 3;
/// Unreadable checkpoints kept for inspection.
const BAD_KEPT: usize = 3;
/// Largest small file read: configuration, specification, chain.
const SMALL_FILE_MAX: u64 = 1024 * 1024;
/// Largest checkpoint: four vectors of 64 Mi parameters, references and a record.
const CHECKPOINT_MAX: u64 = 4 * 256 * 1024 * 1024 + 17 * 1024 * 1024;

/// A state directory.
#[derive(Debug)]
pub struct Store {
    root: PathBuf,
    _lock: Option<File>,
}

/// Why a checkpoint cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unusable {
    /// It is not what was written.
    Damaged(String),
    /// It is whole, but of another network.
    Foreign,
    /// It was written by another Starling: whose, and what this one reads.
    Version(String),
}

/// A checkpoint that was read, and the ones that could not be.
#[derive(Debug)]
pub struct Loaded<T> {
    /// The newest usable one with its generation.
    pub newest: Option<(u64, T)>,
    /// Generations that were put aside, and why.
    pub bad: Vec<(u64, String)>,
}

impl Store {
    /// The directory at `root`, made if it does not exist.
    pub fn create(root: &Path) -> Result<Self, Failure> {
        let mut builder = DirBuilder::new();
        builder.recursive(true).mode(0o700);
        builder.create(root).map_err(|error| Failure::io("create", root, &error))?;
        Ok(Self { root: root.to_owned(), _lock: None })
    }

    /// The directory at `root`, which must exist.
    pub fn open(root: &Path) -> Result<Self, Failure> {
        if !root.is_dir() {
            let message = format!(
                "no state directory at {}: make one with `starling init` or `starling join TICKET`",
                root.display()
            );
            return Err(Failure::new(Code::Config, message));
        }
        Ok(Self { root: root.to_owned(), _lock: None })
    }

    /// Takes the directory for this process alone, and removes what others were writing when they
    /// were killed.
    pub fn lock(&mut self) -> Result<(), Failure> {
        let path = self.path("lock");
        let file =
            open_lock(&self.root, &path).map_err(|error| Failure::io("open", &path, &error))?;
        flock(&file, FlockOperation::NonBlockingLockExclusive).map_err(|_| {
            let message = format!(
                "another starling runs on {}: stop it, or use another --state-dir",
                self.root.display()
            );
            Failure::new(Code::Temporary, message)
        })?;
        self._lock = Some(file);
        // What cannot be removed only takes its space.
        let _ = remove_temporaries(&self.root);
        Ok(())
    }

    /// A path within.
    pub fn path(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    /// The directory.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Writes a small file, whole or not at all.
    pub fn write(&self, name: &str, bytes: &[u8]) -> Result<(), Failure> {
        let path = self.path(name);
        write_whole(&path, bytes).map_err(|error| Failure::io("write", &path, &error))
    }

    /// Reads a small file; none if there is none.
    pub fn read(&self, name: &str) -> Result<Option<Vec<u8>>, Failure> {
        let path = self.path(name);
        match read_bounded(&path, SMALL_FILE_MAX) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) if Errno::from_io_error(&error) == Some(Errno::LOOP) => {
                let message = format!(
                    "{} is a symbolic link, which nothing in a state directory may be: put the \
                     file itself there",
                    path.display()
                );
                Err(Failure::new(Code::Config, message))
            }
            Err(error) => Err(Failure::io("read", &path, &error)),
        }
    }

    /// Reads a small text file; none if there is none.
    pub fn read_text(&self, name: &str) -> Result<Option<String>, Failure> {
        let Some(bytes) = self.read(name)? else { return Ok(None) };
        String::from_utf8(bytes).map(Some).map_err(|_| {
            let message = format!("{} is not UTF-8 text: restore it", self.path(name).display());
            Failure::new(Code::Config, message)
        })
    }

    /// The node's key: a systemd credential if there is one, else the file here, made if `create`.
    pub fn identity(&self, create: bool) -> Result<Keypair, Failure> {
        if let Some(directory) = std::env::var_os("CREDENTIALS_DIRECTORY") {
            let path = PathBuf::from(directory).join("identity");
            if path.exists() {
                return read_seed(&path);
            }
        }
        let path = self.path("identity.seed");
        if !path.exists() && create {
            let mut seed = Zeroizing::new([0; 32]);
            fill_random(&mut *seed)?;
            self.write("identity.seed", &*seed)?;
        }
        check_private(&path)?;
        read_seed(&path)
    }

    /// Counts this start, durably, and says how many there were.
    pub fn next_epoch(&self) -> Result<u64, Failure> {
        let text = self.read_text("boot")?.unwrap_or_default();
        let before = match text.trim() {
            "" => 0,
            text => text.parse::<u64>().map_err(|_| {
                let path = self.path("boot");
                let message = format!(
                    "{} holds no number: peers would take this node's frames for replays. Write a \
                     number above all earlier boots into it",
                    path.display()
                );
                Failure::new(Code::Corrupt, message)
            })?,
        };
        let epoch = before.saturating_add(1);
        self.write("boot", format!("{epoch}\n").as_bytes())?;
        Ok(epoch)
    }

    fn generations(&self) -> Result<Vec<u64>, Failure> {
        let path = self.path("checkpoints");
        let entries = match fs::read_dir(&path) {
            Ok(entries) => entries,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(Failure::io("read", &path, &error)),
        };
        let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        let mut found: Vec<u64> = names.filter_map(|name| generation_of(&name)).collect();
        found.sort_unstable();
        Ok(found)
    }

    /// Whether any checkpoint is there, readable or not.
    pub fn has_checkpoints(&self) -> Result<bool, Failure> {
        Ok(!self.generations()?.is_empty())
    }

    /// Puts a checkpoint on disk and forgets the oldest; its generation. An error leaves the older
    /// ones as they were.
    pub fn save_checkpoint(&self, bytes: &[u8]) -> Result<u64, Failure> {
        let directory = self.path("checkpoints");
        make_folder(&directory).map_err(|error| Failure::io("create", &directory, &error))?;
        let older = self.generations()?;
        let generation = older.last().map_or(1, |last| last.saturating_add(1));
        let path = checkpoint_path(&directory, generation);
        write_whole(&path, bytes).map_err(|error| Failure::io("write", &path, &error))?;
        let surplus = (older.len() + 1).saturating_sub(GENERATIONS);
        for old in older.iter().take(surplus) {
            // What cannot be removed now is tried again at the next checkpoint.
            let _ = fs::remove_file(checkpoint_path(&directory, *old));
        }
        Ok(generation)
    }

    /// Whether checkpoints were put aside that nobody has looked at yet.
    pub fn has_bad(&self) -> bool {
        fs::read_dir(self.path("bad")).is_ok_and(|mut entries| entries.next().is_some())
    }

    /// The newest checkpoint that `read` accepts. Damaged ones are put aside in `bad/`; at one of
    /// another network or version, or that may not be read, everything stays as it is.
    pub fn load_checkpoint<T>(
        &self,
        read: impl Fn(&[u8]) -> Result<T, Unusable>,
    ) -> Result<Loaded<T>, Failure> {
        self.newest_checkpoint(read, |path| self.put_aside(path))
    }

    /// The same, and everything stays where it is.
    pub fn look_at_checkpoint<T>(
        &self,
        read: impl Fn(&[u8]) -> Result<T, Unusable>,
    ) -> Result<Loaded<T>, Failure> {
        self.newest_checkpoint(read, |_| {})
    }

    fn newest_checkpoint<T>(
        &self,
        read: impl Fn(&[u8]) -> Result<T, Unusable>,
        damaged: impl Fn(&Path),
    ) -> Result<Loaded<T>, Failure> {
        let directory = self.path("checkpoints");
        let mut loaded = Loaded { newest: None, bad: Vec::new() };
        for generation in self.generations()?.into_iter().rev() {
            let path = checkpoint_path(&directory, generation);
            let content = match read_bounded(&path, CHECKPOINT_MAX) {
                Ok(bytes) => read(&bytes),
                Err(error) if is_damage(&error) => Err(Unusable::Damaged(error.to_string())),
                Err(error) => return Err(Failure::io("read", &path, &error)),
            };
            match content {
                Ok(value) => {
                    loaded.newest = Some((generation, value));
                    break;
                }
                Err(Unusable::Foreign) => {
                    let message = format!(
                        "{} is of another network than network.toml describes: undo the change \
                         there, or use another --state-dir",
                        path.display()
                    );
                    return Err(Failure::new(Code::Config, message));
                }
                Err(Unusable::Version(reason)) => {
                    let message = format!(
                        "{} is {reason}, or move it away to go on from an older one",
                        path.display()
                    );
                    return Err(Failure::new(Code::Config, message));
                }
                Err(Unusable::Damaged(reason)) => {
                    damaged(&path);
                    loaded.bad.push((generation, reason));
                }
            }
        }
        Ok(loaded)
    }

    fn put_aside(&self, path: &Path) {
        let bad = self.path("bad");
        let made = make_folder(&bad);
        let kept = fs::read_dir(&bad).map_or(0, Iterator::count);
        // Failing to move it costs nothing but a second look at the next start.
        if let (Ok(()), true, Some(name)) = (made, kept < BAD_KEPT, path.file_name()) {
            let _ = fs::rename(path, bad.join(name));
        }
    }
}

fn checkpoint_path(directory: &Path, generation: u64) -> PathBuf {
    directory.join(format!("ckpt-{generation:016x}"))
}

fn generation_of(name: &str) -> Option<u64> {
    let digits = name.strip_prefix("ckpt-").filter(|digits| digits.len() == 16)?;
    u64::from_str_radix(digits, 16).ok().filter(|value| format!("{value:016x}") == digits)
}

/// Writes a file outside of any state directory, whole or not at all.
pub fn write_file(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    write_whole(path, bytes).map_err(|error| Failure::io("write", path, &error))
}

/// Fills `bytes` from the system's generator.
pub fn fill_random(bytes: &mut [u8]) -> Result<(), Failure> {
    getrandom::fill(bytes).map_err(|error| {
        Failure::new(Code::Internal, format!("the system gave no random bytes: {error}"))
    })
}

fn write_whole(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let directory = path.parent().unwrap_or(Path::new("."));
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let temporary = directory.join(format!("{TEMPORARY}{}-{name}", std::process::id()));
    // What an earlier process left there, or another user put there, is not written into.
    let _ = fs::remove_file(&temporary);
    let result = (|| {
        let mut options = OpenOptions::new();
        let mut file = options.write(true).create_new(true).mode(0o600).open(&temporary)?;
        give_to_owner(directory, &file)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&temporary, path)?;
        File::open(directory)?.sync_all()
    })();
    if result.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    result
}

/// Removes temporary files of a state directory. A folder in it may not be a link.
fn remove_temporaries(root: &Path) -> rustix::io::Result<()> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = openat(CWD, root, flags, Mode::empty())?;
    remove_temporaries_in(&root)?;
    let checkpoints = openat(&root, "checkpoints", flags | OFlags::NOFOLLOW, Mode::empty())?;
    remove_temporaries_in(&checkpoints)
}

fn remove_temporaries_in(folder: &OwnedFd) -> rustix::io::Result<()> {
    for entry in Dir::read_from(folder)? {
        let entry = entry?;
        if entry.file_name().to_bytes().starts_with(TEMPORARY.as_bytes()) {
            unlinkat(folder, entry.file_name(), AtFlags::empty())?;
        }
    }
    Ok(())
}

/// Opens the lock, and makes it if it is not there.
fn open_lock(directory: &Path, path: &Path) -> std::io::Result<File> {
    let mut options = OpenOptions::new();
    let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed();
    options.write(true).mode(0o600).custom_flags(flags);
    match options.clone().create_new(true).open(path) {
        Ok(file) => give_to_owner(directory, &file).map(|()| file),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => options.open(path),
        Err(error) => Err(error),
    }
}

/// Gives what root has just made in `directory` to whom that belongs. Nothing that was found there
/// may be given away: the owner could have put any file of the system in its place.
fn give_to_owner(directory: &Path, made: &File) -> std::io::Result<()> {
    let owner = fs::metadata(directory)?;
    if rustix::process::geteuid().is_root() && owner.uid() != 0 {
        std::os::unix::fs::fchown(made, Some(owner.uid()), Some(owner.gid()))?;
    }
    Ok(())
}

/// Makes a folder in the state directory, if it is not there. It may not be a link.
fn make_folder(path: &Path) -> std::io::Result<()> {
    let made = match DirBuilder::new().mode(0o700).create(path) {
        Ok(()) => true,
        Err(error) if error.kind() == ErrorKind::AlreadyExists => false,
        Err(error) => return Err(error),
    };
    let flags = (OFlags::NOFOLLOW | OFlags::DIRECTORY).bits().cast_signed();
    let folder = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
    if made { give_to_owner(path.parent().unwrap_or(path), &folder) } else { Ok(()) }
}

fn read_bounded(path: &Path, bytes_max: u64) -> std::io::Result<Vec<u8>> {
    let mut options = OpenOptions::new();
    let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed();
    let file = options.read(true).custom_flags(flags).open(path)?;
    if !file.metadata()?.is_file() {
        return Err(std::io::Error::other("not a regular file"));
    }
    let mut bytes = Vec::new();
    file.take(bytes_max + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > bytes_max {
        return Err(std::io::Error::other(format!("longer than {bytes_max} bytes")));
    }
    Ok(bytes)
}

/// Whether an error is the file's own and not of our rights or of what this process may use: there
/// is something else in its place, or the disk has lost it.
fn is_damage(error: &std::io::Error) -> bool {
    let errno = Errno::from_io_error(error);
    errno.is_none_or(|errno| matches!(errno, Errno::LOOP | Errno::IO))
}

fn check_private(path: &Path) -> Result<(), Failure> {
    let metadata = fs::symlink_metadata(path).map_err(|error| match error.kind() {
        ErrorKind::NotFound => {
            let message = format!("no key at {}: run `starling init`", path.display());
            Failure::new(Code::Permission, message)
        }
        _ => Failure::io("read", path, &error),
    })?;
    let mode = metadata.mode() & 0o777;
    if mode & 0o077 != 0 {
        let path = path.display();
        let message = format!(
            "the key {path} has mode {mode:04o}, others could read it: run `chmod 600 {path}`, and \
             make a new key if others may have"
        );
        return Err(Failure::new(Code::Permission, message));
    }
    Ok(())
}

fn read_seed(path: &Path) -> Result<Keypair, Failure> {
    let bytes = read_bounded(path, 64).map(Zeroizing::new);
    let bytes = bytes.map_err(|error| Failure::io("read", path, &error))?;
    let seed: &[u8; 32] = bytes.as_slice().try_into().map_err(|_| {
        let message = format!(
            "the key {} has {} bytes, expected 32: restore it from a backup",
            path.display(),
            bytes.len()
        );
        Failure::new(Code::Permission, message)
    })?;
    Ok(Keypair::from_seed(seed))
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "tests damage files on purpose")]
mod tests;
