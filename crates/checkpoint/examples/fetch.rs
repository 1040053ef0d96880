//! Fetches a model from the hub and prints where it is:
//! `cargo run -p simmer-checkpoint --example fetch HuggingFaceTB/SmolLM2-135M-Instruct`

use std::env;
use std::error::Error;

use simmer_checkpoint::hub::{self, HubConfig, HubName, Progress, What};

#[expect(clippy::print_stdout, clippy::print_stderr, reason = "a program")]
fn main() -> Result<(), Box<dyn Error>> {
    let name: HubName = env::args()
        .nth(1)
        .ok_or("name a model: ORG/NAME")?
        .parse()?;
    let mut tell = |progress: Progress<'_>| match progress {
        Progress::Received {
            file,
            done,
            total,
            bytes_per_second,
        } => {
            let rate = bytes_per_second / 1e6;
            eprintln!("{file}: {done} of {total} bytes, {rate:.1} MB/s");
        }
        other => eprintln!("{other:?}"),
    };
    let found = hub::fetch(&name, What::Model, &HubConfig::from_env()?, &mut tell)?;
    if let Some(note) = found.note {
        eprintln!("{note}");
    }
    println!("{}", found.path.display());
    Ok(())
}
