//! simmer: low-rank fine-tuning of LLaMA-family models from recipes.

mod commands;
mod embedded;
mod failure;
mod fitted;
mod folded;
#[cfg(all(unix, not(feature = "libtorch")))]
mod hand_over;
mod hub;
mod interrupt;
mod live;
mod live_line;
mod loaded;
mod local_model;
mod local_ranks;
mod new_file;
mod output;
mod page_file;
mod profile;
mod progress;
mod side_by_side;
mod terminal;
mod usage;
mod version;

use std::panic;
use std::process::ExitCode;

use clap::Parser;
use simmer_kernels::RecyclingAllocator;

/// Every step needs large buffers of the same sizes.
#[cfg(not(target_env = "musl"))]
#[global_allocator]
static ALLOCATOR: RecyclingAllocator = RecyclingAllocator::new();

/// musl's own allocator returns memory to the system all the time, which cost a quarter of the speed.
#[cfg(target_env = "musl")]
#[global_allocator]
static ALLOCATOR: RecyclingAllocator<mimalloc::MiMalloc> =
    RecyclingAllocator::with_small(mimalloc::MiMalloc);

/// Fine-tune LLaMA-family models with LoRA adapters, from recipes
///
/// Results are written to standard output, progress and messages to standard error. Exit codes: 0 done,
/// 1 failed, 2 wrong usage, 130 interrupted.
#[derive(Debug, Parser)]
#[command(
    name = "simmer",
    version = version::short(),
    long_version = version::long(),
    max_term_width = commands::HELP_COLUMNS,
    help_template = commands::Command::help_template(),
    after_help = "`simmer COMMAND --help` lists the options of a command, with examples."
)]
struct Cli {
    #[command(subcommand)]
    command: commands::Command,
}

fn main() -> ExitCode {
    // before there is a second thread
    if let Some(code) = simmer_sandbox::stage(std::env::args_os()) {
        return code;
    }
    simmer_files::explain_bus_errors();
    let print = panic::take_hook();
    panic::set_hook(Box::new(move |panic| {
        if !simmer_data::is_guarded() {
            print(panic);
        }
    }));
    #[cfg(all(unix, not(feature = "libtorch")))]
    if let Err(failure) = hand_over::to_libtorch() {
        failure.report();
        return ExitCode::FAILURE;
    }
    let cli = usage::parse();
    if let Err(failure) = interrupt::listen() {
        failure.report();
        return ExitCode::FAILURE;
    }
    // On a thread of the pool, parallel loops start without waking the pool from another thread.
    match rayon::scope(|_| cli.command.run()) {
        Ok(code) => code,
        Err(failure) if output::is_closed_pipe(&failure) => ExitCode::SUCCESS,
        Err(failure) => {
            failure.report();
            ExitCode::FAILURE
        }
    }
}
