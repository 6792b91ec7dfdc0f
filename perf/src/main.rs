//! Trutina's measuring instruments, one a subcommand; `README.md` says what the figures mean.

mod cycles;
mod device;
mod pipeline;
mod rng;
mod summary;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Measures Trutina.
#[derive(Parser)]
#[command(name = "perf", arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Times the packet path alone, without devices: nanoseconds per packet on one core
    Pipeline(pipeline::Args),
    /// Runs trutinad and DPDK's testpmd on software devices: packets per CPU second of one worker
    Device(device::Args),
}

fn main() -> ExitCode {
    let measured = match Cli::parse().command {
        Command::Pipeline(args) => pipeline::run(&args),
        Command::Device(args) => device::run(&args),
    };
    match measured {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("error: {why}");
            ExitCode::FAILURE
        }
    }
}
