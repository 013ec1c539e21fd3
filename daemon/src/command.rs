//! One file per command.

pub mod check;
pub mod demo;
pub mod events;
pub mod init;
pub mod invite;
pub mod join;
pub mod logs;
pub mod run;
pub mod simulate;
pub mod status;
pub mod watch;
