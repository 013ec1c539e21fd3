//! How the process ends: documented exit codes (sysexits.h) and one line that says why.

use std::fmt;

/// Exit codes; `docs` and scripts rely on them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Code {
    /// Wrong command line.
    Usage = 64,
    /// State that cannot be used.
    Corrupt = 65,
    /// Data set missing or unusable.
    Data = 66,
    /// Cannot bind, or cannot reach a daemon or member.
    Unavailable = 69,
    /// A defect of Starling.
    Internal = 70,
    /// Input or output failed.
    Io = 74,
    /// Busy: try again later.
    Temporary = 75,
    /// Permissions or keys.
    Permission = 77,
    /// Configuration.
    Config = 78,
}

impl Code {
    /// The code with this number.
    pub fn from_number(number: u64) -> Option<Self> {
        const ALL: [Code; 9] = [
            Code::Usage,
            Code::Corrupt,
            Code::Data,
            Code::Unavailable,
            Code::Internal,
            Code::Io,
            Code::Temporary,
            Code::Permission,
            Code::Config,
        ];
        ALL.into_iter().find(|code| *code as u64 == number)
    }
}

/// Why a command ends without success.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// Its exit code.
    pub code: Code,
    /// Whose fault, what was expected, what to do; empty if the log has said it.
    pub message: String,
}

impl Failure {
    /// A failure with this code and message.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }

    /// An operation on a file that failed.
    pub fn io(what: &str, path: &std::path::Path, error: &std::io::Error) -> Self {
        let code = match error.kind() {
            std::io::ErrorKind::PermissionDenied => Code::Permission,
            _ => Code::Io,
        };
        Self::new(code, format!("cannot {what} {}: {error}", path.display()))
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Failure {}

/// Writes a line for people or scripts. A reader that has gone away (`| head -1`) has what it
/// wanted: the command ends quietly.
pub fn say(text: impl fmt::Display) {
    use std::io::Write;
    if writeln!(std::io::stdout(), "{text}").is_err() {
        std::process::exit(0);
    }
}
