//! `starling completions` and `starling man`: both made from the definition of the command line.

use clap::CommandFactory;

use crate::cli::{Cli, Completions, Man};
use crate::exit::{Code, Failure, say};
use crate::store::write_file;

/// Runs `starling completions`.
pub fn completions(options: &Completions) -> Result<(), Failure> {
    use clap_complete::Shell;
    if !matches!(options.shell, Shell::Bash | Shell::Zsh | Shell::Fish) {
        let message = format!("{} is not known here: expected bash, zsh or fish", options.shell);
        return Err(Failure::new(Code::Usage, message));
    }
    let mut text = Vec::new();
    clap_complete::generate(options.shell, &mut Cli::command(), "starling", &mut text);
    say(String::from_utf8_lossy(&text).trim_end());
    Ok(())
}

/// Runs `starling man`.
pub fn man(options: &Man) -> Result<(), Failure> {
    let mut all = Cli::command().disable_help_subcommand(true);
    all.build();
    let Some(directory) = &options.directory else {
        say(String::from_utf8_lossy(&page(all)?).trim_end());
        return Ok(());
    };
    for command in all.get_subcommands().filter(|command| !command.is_hide_set()) {
        let path = directory.join(format!("starling-{}.1", command.get_name()));
        write_file(&path, &page(command.clone())?)?;
    }
    write_file(&directory.join("starling.1"), &page(all)?)
}

fn page(command: clap::Command) -> Result<Vec<u8>, Failure> {
    let mut text = Vec::new();
    let page = clap_mangen::Man::new(command).manual("Starling");
    let written = page.source(concat!("starling ", env!("CARGO_PKG_VERSION"))).render(&mut text);
    written.map_err(|error| Failure::new(Code::Internal, format!("a manual page: {error}")))?;
    Ok(text)
}
