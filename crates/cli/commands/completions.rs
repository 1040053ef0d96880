//! `simmer completions`: scripts that complete the program's commands and options in a shell.

use clap::builder::PossibleValuesParser;
use clap::{Args, Command, CommandFactory};
use clap_complete::aot::{Shell, generate};

use super::recipes;
use crate::failure::Failure;
use crate::output;

/// Devices that a shell offers; others, such as a second GPU, can be typed.
const DEVICES: [&str; 4] = ["auto", "cpu", "libtorch", "libtorch-cuda:0"];

/// Print a script that completes commands, options and files in a shell
///
/// Where to put it: bash: ~/.local/share/bash-completion/completions/simmer; zsh: a file _simmer in a folder of $fpath;
/// fish: ~/.config/fish/completions/simmer.fish; PowerShell: a file that $PROFILE runs.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  simmer completions bash > simmer.bash
  simmer completions fish > simmer.fish")]
pub(crate) struct Completions {
    /// Shell that reads the script
    shell: Shell,
}

impl Completions {
    pub(crate) fn run(self) -> Result<(), Failure> {
        output::print(&script(self.shell))
    }
}

/// The script for a shell.
fn script(shell: Shell) -> String {
    let program = crate::Cli::command();
    // clap_complete offers hidden commands too, and clap cannot remove them
    let shown = program
        .get_subcommands()
        .filter(|command| !command.is_hide_set());
    let mut program = Command::new("simmer")
        .version(env!("CARGO_PKG_VERSION"))
        .args(program.get_arguments().cloned())
        .subcommands(shown.cloned().map(offered));
    let mut script = Vec::new();
    generate(shell, &mut program, "simmer", &mut script);
    // the text is made of the program's own names and help, which are UTF-8
    String::from_utf8_lossy(&script).into_owned()
}

/// A command with the values that a shell offers where the command itself accepts any text.
fn offered(command: Command) -> Command {
    let values = |names: Vec<&'static str>| PossibleValuesParser::new(names);
    let copies = command.get_name() == "copy";
    command
        .mut_args(|argument| match argument.get_id().as_str() {
            "name" if copies => argument.value_parser(values(recipes::names().collect())),
            "device" => argument.value_parser(values(DEVICES.to_vec())),
            _ => argument,
        })
        .mut_subcommands(offered)
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn every_shell_knows_commands_options_and_recipes() {
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish, Shell::PowerShell] {
            let script = script(shell);
            for word in ["accept-changes", "tokenizer", "libtorch-cuda"] {
                assert!(script.contains(word), "{shell}: {word}");
            }
            // clap_complete's scripts for the other shells complete the values of options alone
            let names = matches!(shell, Shell::Bash | Shell::Zsh);
            assert_eq!(script.contains("alpaca-smollm2-135m"), names, "{shell}");
            let hidden = [
                "simmer,reference)",
                "\n(reference)",
                "-a \"reference\"",
                "'reference'",
            ];
            let found = hidden.iter().find(|text| script.contains(**text));
            assert_eq!(found, None, "{shell}: a hidden command");
        }
    }

    /// Bash itself completes words with the script.
    #[test]
    fn bash_completes_with_the_script() {
        let completed = |words: &str| {
            let test = format!(
                "{}\nCOMP_WORDS=({words})\nCOMP_CWORD=$((${{#COMP_WORDS[@]}} - 1))\n\
                 _simmer simmer \"${{COMP_WORDS[COMP_CWORD]}}\" \"${{COMP_WORDS[COMP_CWORD-1]}}\"\n\
                 echo \"${{COMPREPLY[@]}}\"\n",
                script(Shell::Bash)
            );
            let mut bash = Command::new("bash")
                .arg("--norc")
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()
                .unwrap();
            let mut input = bash.stdin.take().unwrap();
            input.write_all(test.as_bytes()).unwrap();
            drop(input);
            let output = bash.wait_with_output().unwrap();
            String::from_utf8(output.stdout).unwrap().trim().to_owned()
        };
        assert_eq!(completed("simmer trai"), "train");
        assert_eq!(completed("simmer train --acc"), "--accept-changes");
        assert_eq!(completed("simmer recipes copy quick"), "quickstart");
    }
}
