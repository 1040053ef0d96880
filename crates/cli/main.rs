//! simmer: low-rank fine-tuning of LLaMA-family models from recipes.

mod commands;
mod failure;
mod hub;
mod interrupt;
mod live;
mod loaded;
mod output;
mod profile;
mod progress;
mod side_by_side;

use std::panic;
use std::process::ExitCode;

use clap::Parser;
use simmer_kernels::RecyclingAllocator;

/// Steps use the same big buffers again and again.
#[global_allocator]
static ALLOCATOR: RecyclingAllocator = RecyclingAllocator::new();

/// Fine-tune LLaMA-family models with low-rank adapters, from recipes.
///
/// Results go to standard output, progress and messages to standard error. Exit code 0: done,
/// 1: failed, 2: wrong usage, 130: interrupted.
#[derive(Debug, Parser)]
#[command(name = "simmer", version, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: commands::Command,
}

fn main() -> ExitCode {
    simmer_files::explain_bus_errors();
    let speak = panic::take_hook();
    panic::set_hook(Box::new(move |panic| {
        if !simmer_data::is_guarded() {
            speak(panic);
        }
    }));
    let cli = Cli::parse();
    // On a thread of the pool, parallel loops start without waking the pool from outside.
    match rayon::scope(|_| cli.command.run()) {
        Ok(code) => code,
        Err(failure) if output::is_closed_pipe(&failure) => ExitCode::SUCCESS,
        Err(failure) => {
            failure.report();
            ExitCode::FAILURE
        }
    }
}
