//! Downloads a model from the hub and prints its path:
//! `cargo run -p simmer-checkpoint --example fetch HuggingFaceTB/SmolLM2-135M-Instruct`
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a program")]

use std::env;
use std::process::ExitCode;

use simmer_checkpoint::hub::{self, Fetched, HubConfig, HubError, HubName, Progress, What};
use simmer_hint::Hint as _;

fn main() -> ExitCode {
    match fetch(&env::args().nth(1).unwrap_or_default()) {
        Ok(found) => {
            if let Some(note) = found.note {
                eprintln!("{note}");
            }
            println!("{}", found.path.display());
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("error: {error}");
            if let Some(hint) = error.hint() {
                eprintln!("hint: {hint}");
            }
            ExitCode::FAILURE
        }
    }
}

fn fetch(name: &str) -> Result<Fetched, HubError> {
    let name: HubName = name.parse()?;
    hub::fetch(&name, What::Model, &HubConfig::from_env()?, &mut tell)
}

fn tell(progress: Progress<'_>) {
    match progress {
        Progress::Received {
            file,
            done,
            total,
            bytes_per_second,
        } => {
            let rate = bytes_per_second / 1e6;
            eprintln!("{file}: {done} of {total} bytes, {rate:.1} MB/s");
        }
        Progress::Checking { file } => eprintln!("{file}: checksum"),
        Progress::Waiting { file } => eprintln!("{file}: another process is fetching it"),
        Progress::Retrying { error, pause } => eprintln!("{error}; again in {pause:?}"),
    }
}
