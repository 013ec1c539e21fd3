//! `starling`: one peer of a decentralized-learning network, and the tools around it.

mod cli;
mod command;
mod compute;
mod control;
mod dataset;
mod driver;
mod exit;
mod log;
mod memory;
mod net;
mod service;
mod setup;
mod status;
mod store;
mod web;

use std::process::ExitCode;

use clap::Parser;

use crate::cli::{Cli, Command};
use crate::exit::{Code, Failure};

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are no errors, whatever clap calls them.
            let code = if error.use_stderr() { Code::Usage as u8 } else { 0 };
            let _ = error.print();
            return ExitCode::from(code);
        }
    };
    match run(cli.command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            if !failure.message.is_empty() {
                eprintln!("starling: {failure}");
            }
            ExitCode::from(failure.code as u8)
        }
    }
}

fn run(command: Command) -> Result<(), Failure> {
    match command {
        Command::Demo(options) => command::demo::run(&options),
        Command::Init(options) => command::init::run(&options),
        Command::Run(options) => command::run::run(&options),
        Command::Check(options) => command::check::run(&options),
        Command::Invite(options) => command::invite::run(&options),
        Command::Join(options) => command::join::run(&options),
        Command::Simulate(options) => command::simulate::run(&options),
        Command::Status(options) => command::status::run(&options),
        Command::Peers(ask) => command::ask::peers(&ask),
        Command::Ban(ask) => command::ask::ban(&ask, "ban"),
        Command::Unban(ask) => command::ask::ban(&ask, "unban"),
        Command::Checkpoint(ask) => command::ask::checkpoint(&ask),
        Command::Pause(ask) => command::ask::pause(&ask, "pause"),
        Command::Resume(ask) => command::ask::pause(&ask, "resume"),
        Command::Leave(ask) => command::ask::leave(&ask),
        Command::Reload(ask) => command::ask::reload(&ask),
        Command::Limits(ask) => command::ask::limits(&ask),
        Command::Privacy(ask) => command::ask::privacy(&ask),
        Command::Completions(options) => command::manual::completions(&options),
        Command::Man(options) => command::manual::man(&options),
        Command::Events(options) => command::events::run(&options),
        Command::Logs(options) => command::logs::run(&options),
    }
}
