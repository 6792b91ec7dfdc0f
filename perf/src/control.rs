//! Times the journey of a command: from a request on the control socket until all workers use its result.
//!
//! A [`site`] is a configuration of some size. [`daemon`] runs the real `trutinad` on it, on devices without
//! frames; [`appliance`] runs the same control thread and worker in this process, where [`gaps`] watches the
//! worker's turns. [`changes`] makes the requests, [`build`] times the parts of a snapshot by themselves, and [`tables`]
//! those of hash schedulers.

mod appliance;
mod build;
mod changes;
mod daemon;
mod gaps;
mod memory;
mod report;
mod site;
mod tables;
mod tally;
mod traffic;

use std::time::Duration;

use controlplane::client::Client;

use changes::{Change, Window};
use report::{By, Report, Row};
use site::Site;
use tally::Tally;
use traffic::Load;

/// What to measure.
#[derive(clap::Args)]
pub struct Args {
    /// Fewer repeats: a rough answer within seconds
    #[arg(long)]
    quick: bool,
    /// One JSON object a line
    #[arg(long)]
    json: bool,
}

/// Services and backends of the sites that are measured.
const SIZES: [(u32, u32); 3] = [(1, 1), (100, 1_000), (10_000, 100_000)];

/// Measures all sites.
///
/// # Errors
/// What could not be done.
pub fn run(args: &Args) -> Result<(), String> {
    let repeats = if args.quick { 5 } else { 25 };
    let report = Report::new(args.json);
    tables::measure(repeats, &report)?;
    for (services, backends) in SIZES {
        let site = Site::write(services, backends)?;
        build::measure(&site, repeats.min(10), &report)?;
        in_force(&site, repeats, &report)?;
        gaps(&site, Load::Idle, repeats, &report)?;
        gaps(&site, Load::Full, repeats, &report)?;
    }
    Ok(())
}

/// How long the real daemon takes for each change, and how much memory it has afterwards.
fn in_force(site: &Site, repeats: usize, report: &Report) -> Result<(), String> {
    let daemon = daemon::Daemon::start(site)?;
    let mut client = daemon.connect()?;
    report.line(&Row::memory(site, "start", daemon.memory()?));
    for change in Change::ALL {
        let times = changes::repeat(&mut client, site, change, repeats, |_, _| {})?;
        report.line(&Row::in_force(site, By::Trutinad, change, &times)?);
    }
    report.line(&Row::memory(site, "changed", daemon.memory()?));
    Ok(())
}

/// How long a worker does not poll when it takes a new snapshot, and how often else, with and without changes.
fn gaps(site: &Site, load: Load, repeats: usize, report: &Report) -> Result<(), String> {
    let appliance = appliance::Appliance::start(site, load)?;
    let mut client = Client::connect(site.socket()).map_err(|error| error.to_string())?;
    for change in Change::ALL {
        let mut tally = Tally::default();
        let watch = |window: Window, length: Duration| tally.add(window, length, appliance.turns.try_iter());
        let times = changes::repeat(&mut client, site, change, repeats, watch)?;
        match load {
            Load::Idle => {
                report.line(&Row::in_force(site, By::InProcess, change, &times)?);
                report.line(&Row::gap(site, change, &tally)?);
            }
            Load::Full => report.line(&Row::burst(site, change, &tally)?),
        }
    }
    drop(client);
    appliance.stop(site)
}
