//! `trimaran completion`

use clap::{Args, ValueEnum};

use crate::completion;
use crate::output;

/// Print the script that lets a shell complete commands, flags and names of builders
///
/// Examples:
///   source <(trimaran completion bash)                                          for this session
///   trimaran completion bash > /etc/bash_completion.d/trimaran                  for everybody
///   trimaran completion zsh > ~/.zfunc/_trimaran                                with ~/.zfunc in fpath
///   trimaran completion fish > ~/.config/fish/completions/trimaran.fish
///   trimaran completion powershell >> $PROFILE
#[derive(Args, Debug)]
#[command(verbatim_doc_comment)]
pub struct CompletionArgs {
    /// The shell
    #[arg(value_enum)]
    shell: Shell,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Shell {
    Bash,
    Zsh,
    Fish,
    Powershell,
    Elvish,
}

impl Shell {
    fn name(self) -> &'static str {
        match self {
            Self::Bash => "bash",
            Self::Zsh => "zsh",
            Self::Fish => "fish",
            Self::Powershell => "powershell",
            Self::Elvish => "elvish",
        }
    }
}

pub fn run(args: &CompletionArgs) -> anyhow::Result<()> {
    let shell = args.shell.name();
    let script = completion::script(shell, "trimaran")?
        .ok_or_else(|| anyhow::anyhow!("there is no completion for {shell}"))?;
    Ok(output::data(&script)?)
}
