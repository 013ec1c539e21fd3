//! One file per command, or per kind of command.

pub mod ask;
pub mod check;
pub mod demo;
pub mod events;
pub mod init;
pub mod invite;
pub mod join;
pub mod logs;
pub mod manual;
pub mod run;
pub mod simulate;
pub mod status;
pub mod watch;
