//! What flows cost in memory: bytes of a table, how much of it is there, and flows that find no place in it.

use std::fs;

use dataplane::flow::state::State;
use dataplane::flow::table::{FlowTable, HashSecret, Inserted, NarrowTable, WideTable, Worth};
use dataplane::flow::{FlowKey, FlowValue, Key, WideKey};
use dataplane::snapshot::{BackendSlot, ServiceSlot};
use serde::Serialize;

/// How results are printed, and for how many flows tables are rated.
#[derive(clap::Args)]
pub struct Args {
    /// One JSON object a line
    #[arg(long)]
    json: bool,
    /// Flows, as many as the tables are rated for
    #[arg(long, value_delimiter = ',', default_values_t = [10_000, 1_000_000, 10_000_000], value_parser = clap::value_parser!(u32).range(1..=16_000_000))]
    flows: Vec<u32>,
}

/// One result; its keys are stable.
#[derive(Serialize)]
struct Row {
    family: &'static str,
    flows: u32,
    /// That the table asked for.
    table_bytes: usize,
    /// By which the program grew; pages are shared with others, so of small tables it says little.
    resident_bytes: u64,
    bytes_per_flow: f64,
    /// Share of flows that found no place, all others being in use.
    refused: f64,
}

/// Fills tables of both kinds.
///
/// # Errors
/// The kernel does not say how large the program is.
pub fn run(args: &Args) -> Result<(), String> {
    if !args.json {
        println!("family     flows  table (MB)  resident (MB)  bytes/flow  refused");
    }
    for &flows in &args.flows {
        for row in [narrow(flows)?, wide(flows)?] {
            println!("{}", if args.json { serde_json::json!(row).to_string() } else { row.text() });
        }
    }
    Ok(())
}

/// IPv4 flows of services with one port.
fn narrow(flows: u32) -> Result<Row, String> {
    let key = |flow| FlowKey::new(0x0a00_0001 + flow / 4, 40_000 + (flow % 4) as u16, ServiceSlot(1));
    fill("ipv4", flows, |secret| NarrowTable::new(flows as usize, secret), key)
}

/// IPv6 flows; those of gateways and of services with several ports are kept like these.
fn wide(flows: u32) -> Result<Row, String> {
    let client = |flow| 0x2001_0002_0000_0001 << 64 | u128::from(flow / 4);
    let key = |flow| WideKey::new(client(flow), 40_000 + (flow % 4) as u16, ServiceSlot(1), 443);
    fill("ipv6", flows, |secret| WideTable::new(flows as usize, secret), key)
}

fn fill<K: Key, const WAYS: usize>(
    family: &'static str,
    flows: u32,
    table: impl Fn(HashSecret) -> FlowTable<K, WAYS>,
    key: impl Fn(u32) -> K,
) -> Result<Row, String> {
    let secret = HashSecret::random();
    let before = resident_bytes()?;
    let mut table = table(secret);
    let flow = FlowValue::new(BackendSlot(1), State::Established, 1);
    let insert = |flow_number| {
        let key = key(flow_number);
        table.insert(key.hash(&secret), key, flow, |_| Worth::Live)
    };
    let refused = (0..flows).map(insert).filter(|inserted| matches!(inserted, Inserted::Full)).count();
    let resident_bytes = resident_bytes()?.saturating_sub(before);
    let (table_bytes, flows_f64) = (table.bytes(), f64::from(flows));
    let (bytes_per_flow, refused) = (table_bytes as f64 / flows_f64, refused as f64 / flows_f64);
    Ok(Row { family, flows, table_bytes, resident_bytes, bytes_per_flow, refused })
}

/// Bytes of this program that are in memory, and not read from a file (proc_pid_status(5)).
fn resident_bytes() -> Result<u64, String> {
    let status =
        fs::read_to_string("/proc/self/status").map_err(|why| format!("/proc/self/status: {why}"))?;
    let field = status.lines().find_map(|line| line.strip_prefix("RssAnon:"));
    let kib = field.and_then(|field| field.trim().trim_end_matches(" kB").parse::<u64>().ok());
    kib.map(|kib| kib * 1024).ok_or_else(|| "/proc/self/status has no RssAnon".to_owned())
}

impl Row {
    fn text(&self) -> String {
        let Self { family, flows, bytes_per_flow, refused, .. } = self;
        let [table, resident] = [self.table_bytes as u64, self.resident_bytes].map(|bytes| bytes / 1_000_000);
        format!(
            "{family:<6}  {flows:>8}  {table:>10}  {resident:>13}  {bytes_per_flow:>10.1}  {refused:>7.1e}"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_as_large_as_they_may_be() {
        for (row, most) in [(narrow(100_000).unwrap(), 32.1), (wide(100_000).unwrap(), 64.1)] {
            assert!(row.bytes_per_flow <= most && row.refused < 1e-4, "{}", row.text());
        }
    }
}
