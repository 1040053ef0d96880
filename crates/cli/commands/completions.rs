//! `simmer completions`: scripts that complete the program's commands and options in a shell.

use clap::builder::{PossibleValue, PossibleValuesParser};
use clap::{Args, Command, CommandFactory};
use clap_complete::aot::{Shell, generate};
use simmer_data::Template;
use simmer_eval::Task;

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
    let mut script = String::from_utf8_lossy(&script).into_owned();
    if shell == Shell::Fish {
        fish_arguments(&program, &[], &mut script);
    }
    if shell == Shell::Bash {
        script = bash_files(&script);
    }
    script
}

/// Lets bash offer files for the first argument of a command: clap_complete's script offers its options instead, until a
/// letter is typed.
fn bash_files(script: &str) -> String {
    let mut has_words = true;
    let mut before = "";
    let mut lines = String::new();
    for line in script.lines() {
        let text = line.trim_start();
        let indent = &line[..line.len() - text.len()];
        if let Some(words) = text.strip_prefix("opts=") {
            let mut words = words.trim_matches('"').split(' ');
            has_words = words.any(|word| !word.starts_with('-'));
        }
        let of_files = match text {
            _ if has_words => None,
            // if the word begins with `-`, or is the first argument
            _ if text.starts_with("if [[ ${cur} == -* ||") => Some("if [[ ${cur} == -* ]] ; then"),
            // of any other word
            _ if before == "esac" && text.starts_with("COMPREPLY=") => Some("COMPREPLY=()"),
            _ => None,
        };
        lines += indent;
        lines += of_files.unwrap_or(text);
        lines.push('\n');
        before = text;
    }
    lines
}

/// Adds the values of arguments without a name: clap_complete's script for fish offers files in their place.
fn fish_arguments(command: &Command, above: &[&str], script: &mut String) {
    for argument in command.get_positionals() {
        let values = argument.get_possible_values();
        let names: Vec<&str> = values.iter().map(PossibleValue::get_name).collect();
        if let ([first, rest @ ..], false) = (above, names.is_empty()) {
            let mut place = format!("__fish_simmer_using_subcommand {first}");
            for name in rest {
                place.push_str("; and __fish_seen_subcommand_from ");
                place.push_str(name);
            }
            let names = names.join(" ");
            let line = format!("complete -c simmer -n \"{place}\" -f -a \"{names}\"\n");
            script.push_str(&line);
        }
    }
    for inner in command.get_subcommands() {
        let path = [above, &[inner.get_name()]].concat();
        fish_arguments(inner, &path, script);
    }
}

/// A command with the values that a shell offers where the command itself accepts any text.
fn offered(command: Command) -> Command {
    let values = |names: Vec<&'static str>| PossibleValuesParser::new(names);
    let copies = command.get_name() == "copy";
    command
        .mut_args(|argument| match argument.get_id().as_str() {
            "name" if copies => argument.value_parser(values(recipes::names().collect())),
            "tasks" => argument.value_parser(values(Task::names().collect())),
            "template" => argument.value_parser(values(Template::names().collect())),
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
            // clap_complete's script for PowerShell completes the values of options alone
            let names = shell != Shell::PowerShell;
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
        assert_eq!(completed("simmer eval --tasks pi"), "piqa");
        assert_eq!(completed("simmer generate --template chatm"), "chatml");
        // nothing, so that bash offers files
        assert_eq!(completed("simmer train ''"), "");
        assert!(completed("simmer data ''").contains("lint"));
    }

    /// Fish itself completes words with the script, on machines that have it.
    #[test]
    fn fish_completes_with_the_script() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("simmer.fish");
        std::fs::write(&file, script(Shell::Fish)).unwrap();
        let completed = |words: &str| {
            let lines = "source $argv[1]; complete -C $argv[2] | string split -f 1 \\t";
            let mut fish = Command::new("fish");
            fish.args(["--no-config", "-c", lines]).arg(&file);
            let output = fish.arg(words).output().ok()?;
            Some(String::from_utf8(output.stdout).unwrap())
        };
        let Some(commands) = completed("simmer trai") else {
            eprintln!("there is no fish: not tried");
            return;
        };
        assert_eq!(commands, "train\n");
        let option = completed("simmer train --acc").unwrap();
        assert_eq!(option, "--accept-changes\n");
        let recipe = completed("simmer recipes copy quick").unwrap();
        assert_eq!(recipe, "quickstart\n");
        let shells = completed("simmer completions fi").unwrap();
        assert_eq!(shells, "fish\n");
    }

    /// Zsh itself completes words with the script, at its prompt in a terminal of its own, on machines that have it.
    #[test]
    fn zsh_completes_with_the_script() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("_simmer"), script(Shell::Zsh)).unwrap();
        // zpty is a terminal inside zsh: completions need a prompt. The list that TAB opens ends up in the file.
        let driver = r#"
            zmodload zsh/zpty || exit 3
            cd $1
            export TERM=dumb
            zpty inner zsh -f -i
            inner() { zpty -w inner "$1"; }
            inner "fpath=($1 \$fpath); autoload -U compinit; compinit -u -d $1/dump; PS1=; unsetopt beep"
            inner "accepted() { print -rn -- \$BUFFER > $1/got.new; mv $1/got.new $1/got; BUFFER=; zle accept-line }"
            inner "zle -N accepted; bindkey '^G' accepted"
            for words in "simmer trai" "simmer train --acc" "simmer recipes copy quick" "simmer completions fi"; do
                rm -f $1/got
                zpty -n -w inner "$words"$'\t\a'
                for wait in {1..200}; do [[ -e $1/got ]] && break; sleep 0.1; done
                print -r -- "$(<$1/got)"
            done
            zpty -d inner"#;
        let mut zsh = Command::new("zsh");
        let Ok(output) = zsh
            .args(["-f", "-c", driver, "zsh"])
            .arg(folder.path())
            .output()
        else {
            eprintln!("there is no zsh: not tried");
            return;
        };
        let text = String::from_utf8(output.stdout).unwrap();
        let lines: Vec<&str> = text.lines().map(str::trim_end).collect();
        let expected = [
            "simmer train",
            "simmer train --accept-changes",
            "simmer recipes copy quickstart",
            "simmer completions fish",
        ];
        assert_eq!(lines, expected);
    }
}
