//! `starling logs`: what nodes have told, from the journal, a file or standard input.

mod filter;
mod print;

use std::fs::File;
use std::io::{BufRead, BufReader, ErrorKind, Read};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime};

use self::filter::Filter;
use self::print::Printer;
use super::invite::parse_time;
use crate::cli::Logs;
use crate::exit::{Code, Failure};

/// Longest line that can be one of ours; a longer one is read in pieces, which are not.
const LINE_MAX: u64 = 64 * 1024;
/// How often a followed file is looked at.
const POLL: Duration = Duration::from_millis(250);

/// Runs the command.
pub fn run(options: &Logs) -> Result<(), Failure> {
    let since = options.since.as_deref().map(|text| parse_time("--since", text)).transpose()?;
    let since = since.and_then(|age| SystemTime::now().checked_sub(Duration::from_secs(age)));
    let filter = Filter::new(options, since)?;
    let mut printer = Printer::new(filter, options.json, options.file.is_none());
    let Some(path) = options.file.as_deref() else {
        return journal(options, since, &mut printer);
    };
    let read = if path == Path::new("-") {
        copy(&mut std::io::stdin().lock(), &mut printer).map(|_| ())
    } else {
        file(path, options.follow, &mut printer)
    };
    read.map_err(|error| Failure::io("read", path, &error))
}

fn journal(
    options: &Logs,
    since: Option<SystemTime>,
    printer: &mut Printer,
) -> Result<(), Failure> {
    let unreadable = |error| Failure::io("read", Path::new("the journal"), &error);
    let mut command = Command::new("journalctl");
    command.args(["--quiet", "--no-pager", "--output=cat", "--unit", &options.unit]);
    if options.follow {
        command.arg("--follow");
    }
    if let Some(since) = since.and_then(|since| since.duration_since(SystemTime::UNIX_EPOCH).ok()) {
        command.arg(format!("--since=@{}", since.as_secs()));
    }
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn();
    let mut child = child.map_err(|error| {
        let why = match error.kind() {
            ErrorKind::NotFound => "it is not installed".to_owned(),
            _ => error.to_string(),
        };
        let message = format!(
            "cannot run journalctl ({why}): give a file with --file, or - for standard input"
        );
        Failure::new(Code::Unavailable, message)
    })?;
    let mut whole = true;
    if let Some(stdout) = child.stdout.take() {
        whole = copy(&mut BufReader::new(stdout), printer).map_err(unreadable)?;
    }
    if !whole {
        // It may have ended already.
        let _ = child.kill();
    }
    let status = child.wait().map_err(unreadable)?;
    if whole && !status.success() {
        let message = format!(
            "journalctl ended with {status}: reading the journal of a system needs root or the \
             group systemd-journal"
        );
        return Err(Failure::new(Code::Permission, message));
    }
    if printer.read == 0 {
        // No failure: the unit may not have been started yet.
        eprintln!(
            "starling: the journal has no lines of {}. What a node told that was run by hand is \
             where its standard error went: --file",
            options.unit
        );
    }
    Ok(())
}

/// Prints all lines; false if whoever reads ours has gone away.
fn copy(input: &mut impl BufRead, printer: &mut Printer) -> std::io::Result<bool> {
    let mut line = Vec::new();
    while next_line(input, &mut line)? {
        if !printer.print(&line) {
            return Ok(false);
        }
        line.clear();
    }
    // The last one may have no end.
    Ok(line.is_empty() || printer.print(&line))
}

/// Reads on until `line` ends; false at the end of the input.
fn next_line(input: &mut impl BufRead, line: &mut Vec<u8>) -> std::io::Result<bool> {
    input.by_ref().take(LINE_MAX).read_until(b'\n', line)?;
    Ok(line.ends_with(b"\n") || line.len() as u64 >= LINE_MAX)
}

fn file(path: &Path, follow: bool, printer: &mut Printer) -> std::io::Result<()> {
    let mut input = BufReader::new(File::open(path)?);
    if !follow {
        return copy(&mut input, printer).map(|_| ());
    }
    let (mut line, mut read) = (Vec::new(), 0);
    loop {
        if !rest(&mut input, &mut line, &mut read, printer)? {
            return Ok(());
        }
        std::thread::sleep(POLL);
        // A file that was replaced or cut is read anew; one that is gone may come back.
        let open = input.get_ref().metadata()?;
        if let Ok(now) = std::fs::metadata(path)
            && (now.ino() != open.ino() || now.dev() != open.dev() || now.len() < read)
        {
            // What was written before it was replaced; the last line may have no end.
            if !rest(&mut input, &mut line, &mut read, printer)?
                || (!line.is_empty() && !printer.print(&line))
            {
                return Ok(());
            }
            input = BufReader::new(File::open(path)?);
            line.clear();
            read = 0;
        }
    }
}

/// Prints all lines that are there; false if whoever reads ours has gone away.
fn rest(
    input: &mut impl BufRead,
    line: &mut Vec<u8>,
    read: &mut u64,
    printer: &mut Printer,
) -> std::io::Result<bool> {
    loop {
        let before = line.len();
        let whole = next_line(input, line)?;
        *read += (line.len() - before) as u64;
        if !whole {
            return Ok(true);
        }
        if !printer.print(line) {
            return Ok(false);
        }
        line.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_lines_come_in_pieces_and_the_last_may_have_no_end() {
        let text = [&b"one\n"[..], &[b'x'; 70_000], b"\ntwo"].concat();
        let mut input = &text[..];
        let (mut line, mut lengths) = (Vec::new(), Vec::new());
        while next_line(&mut input, &mut line).expect("memory") {
            lengths.push(line.len());
            line.clear();
        }
        assert_eq!(lengths, [4, 65_536, 70_001 - 65_536]);
        assert_eq!(line, b"two");
    }
}
