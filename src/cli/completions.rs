//! `genwatch completions` and `genwatch man`: the command line for shells and man pages.

use std::io::Write as _;
use std::path::PathBuf;

use anyhow::Context as _;
use clap::{Args, CommandFactory as _};
use clap_complete::Shell;

use super::{Cli, Failure};

/// Print completions for a shell.
///
/// For bash: genwatch completions bash > ~/.local/share/bash-completion/completions/genwatch
#[derive(Debug, Args)]
pub struct Completions {
    /// The shell.
    #[arg(value_enum)]
    shell: Shell,
}

/// Write the man pages into a folder, one per command.
///
/// To read them: genwatch man ~/.local/share/man/man1 && man genwatch-worker
#[derive(Debug, Args)]
pub struct Man {
    /// The folder; created if missing.
    #[arg(value_name = "DIR")]
    folder: PathBuf,
}

pub(super) fn print_completions(options: &Completions) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(options.shell, &mut Cli::command(), "genwatch", &mut script);
    std::io::stdout().lock().write_all(&script)?;
    Ok(())
}

pub(super) fn write_man_pages(options: &Man) -> Result<(), Failure> {
    let folder = &options.folder;
    std::fs::create_dir_all(folder)
        .and_then(|()| clap_mangen::generate_to(Cli::command(), folder))
        .with_context(|| format!("the man pages were not written into {}", folder.display()))?;
    Ok(())
}
