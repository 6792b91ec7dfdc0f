//! `trutina`: the command line of a running appliance.
//!
//! A command becomes one call on the control socket and its answer a table, or JSON with `--json`. This
//! binary knows the protocol only; it neither links DPDK nor needs any privilege but access to the socket.

#[path = "../cli/mod.rs"]
mod cli;

use std::io::{self, ErrorKind, Write as _};
use std::process::ExitCode;

use clap::Parser as _;
use cli::{Arguments, Failure};

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let printed = cli::run(&arguments).and_then(|text| print(&text).map_err(Failure::Output));
    match printed {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("error: {failure}");
            ExitCode::from(failure.exit_code())
        }
    }
}

/// Writes to standard output; a reader that has seen enough, such as `head`, is no failure.
fn print(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        result => result,
    }
}
