//! Trutina's measuring instruments, one a subcommand; `README.md` says what the figures mean.

mod bound;
mod control;
mod cycles;
mod device;
mod latency;
mod memory;
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
    Pipeline(Box<pipeline::Args>),
    /// Fills flow tables: bytes per flow, and flows that find no place
    Memory(memory::Args),
    /// Times changes of the configuration until workers use them, and how long they keep workers from polling
    Control(control::Args),
    /// Runs trutinad and DPDK's testpmd on software devices, in turns: packets in a CPU second of the worker
    Device(device::Args),
    /// Sends paced frames through trutinad and testpmd: how long each is inside
    Latency(latency::Args),
    /// What `latency` starts in a process of its own
    #[command(hide = true)]
    LatencyGenerator(latency::generator::Order),
}

fn main() -> ExitCode {
    let measured = match Cli::parse().command {
        Command::Pipeline(args) => pipeline::run(&args),
        Command::Memory(args) => memory::run(&args),
        Command::Control(args) => control::run(&args),
        Command::Device(args) => device::run(&args),
        Command::Latency(args) => latency::run(&args),
        Command::LatencyGenerator(order) => latency::generator::run(&order),
    };
    match measured {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("error: {why}");
            ExitCode::FAILURE
        }
    }
}
