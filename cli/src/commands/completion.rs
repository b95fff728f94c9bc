//! `flash completion`: the script that teaches a shell this command line.

use clap::CommandFactory as _;
use clap_complete::Shell;

use crate::args::Cli;
use crate::error::Error;
use crate::output;

pub(crate) const EXAMPLES: &str = "Examples:
  source <(flash completion bash)
  flash completion zsh > ~/.zfunc/_flash
  flash completion fish > ~/.config/fish/completions/flash.fish";

/// Arguments of `flash completion`.
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    /// The shell
    shell: Shell,
}

pub(crate) fn run(args: &Args) -> Result<u8, Error> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "flash", &mut script);
    output::print(&String::from_utf8_lossy(&script))?;
    Ok(0)
}
