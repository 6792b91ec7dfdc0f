//! Our appliance, configured for the flows of a capture. Its control socket has the counters.

use std::fmt::Write as _;
use std::fs;
use std::net::IpAddr;
use std::path::Path;
use std::process::Command;

use config::words::Mode;
use controlplane::api::{Done, Drop, Request, Stats};
use controlplane::client::Client;

use super::capture::{BACKEND_PORT, Capture, SERVICES, backend, vip};
use super::machine::{Machine, memory_mib};
use super::process::Process;
use super::{Counts, UnderTest};
use crate::pipeline::family::{Family, Net};

/// Numbers of our and the gateway's address on the link; backends begin at 1.
const OWN: u32 = 0x1_fffe;
const GATEWAY: u32 = 0x1_fffd;
/// Flows for which there is a local address in full NAT; see the pipeline's world.
const FLOWS_PER_LOCAL: u32 = 60_000;
/// Drops that are the device's doing: it was full.
const FULL: &str = "tx_full";

/// A running trutinad.
pub struct Appliance {
    process: Process,
    client: Client,
}

impl Appliance {
    /// Starts one on a device and waits until it answers.
    ///
    /// # Errors
    /// A sentence and the end of its log.
    pub fn start(
        machine: &Machine,
        directory: &Path,
        device: &str,
        mode: Mode,
        flows: u32,
        capture: &Capture,
    ) -> Result<Self, String> {
        let (file, socket) = (directory.join("trutina.toml"), directory.join("trutina.sock"));
        let text = configuration(machine, &socket, device, mode, flows, capture);
        fs::write(&file, text).map_err(|why| format!("{}: {why}", file.display()))?;
        let mut command = Command::new(&machine.trutinad);
        command.arg("--config").arg(&file);
        let mut process = Process::start(&command, directory, "worker-0")?;
        // It listens before its devices are open, and answers after that.
        let client = process.wait_for(|| {
            let mut client = Client::connect(&socket).ok()?;
            client.call::<Stats>(&Request::Stats).ok()?;
            Some(client)
        })?;
        Ok(Self { process, client })
    }
}

impl UnderTest for Appliance {
    fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    fn counts(&mut self) -> Result<Counts, String> {
        let stats: Stats = self.client.call(&Request::Stats).map_err(|why| why.to_string())?;
        let worker = stats.workers.first().ok_or("trutinad has no worker")?;
        let drops = worker.drops.iter().filter(|drop| drop.reason != FULL);
        Ok(Counts { received: worker.received, dropped: drops.map(|drop| drop.packets).sum() })
    }

    fn reasons(&mut self) -> String {
        let drops = self.client.call::<Vec<Drop>>(&Request::Drops).unwrap_or_default();
        let counted = drops.iter().filter(|drop| drop.packets > 0);
        counted.map(|drop| format!("{} {}", drop.reason, drop.packets)).collect::<Vec<_>>().join(", ")
    }

    fn stop(mut self: Box<Self>) -> Result<(), String> {
        self.client.call::<Done>(&Request::Stop).map_err(|why| why.to_string())?;
        self.process.wait()
    }
}

/// The configuration file: every neighbour is known beforehand, and flows may begin in their middle, since a
/// capture that goes round has no first packets.
fn configuration(
    machine: &Machine,
    socket: &Path,
    device: &str,
    mode: Mode,
    flows: u32,
    capture: &Capture,
) -> String {
    let link = |number| Family::Ipv4.address(Net::Link, number);
    let Machine { control, worker, .. } = machine;
    let memory_mib = memory_mib(capture.packets);
    // The driver keeps an mbuf for each packet of the capture, and the room for pieces is the number of mbufs
    // that can be configured; no piece will come.
    let pieces = capture.packets.min(1 << 20);
    let mut text = format!(
        "[dpdk]\nmemory_mib = {memory_mib}\nfile_prefix = \"tested\"\n\
         [cores]\ncontrol = {control}\nworkers = [{worker}]\n\
         [[port]]\nname = \"lan\"\ndevice = \"{device}\"\naddresses = [\"{}/15\"]\n\
         [[route]]\nto = \"0.0.0.0/0\"\nvia = \"{}\"\n\
         [flow_table]\ncapacity = {flows}\nwide_capacity = 1\n\
         [fragments]\ncapacity = {pieces}\n\
         [control]\nsocket = \"{}\"\n",
        link(OWN),
        link(GATEWAY),
        socket.display(),
    );
    if mode == Mode::FullNat {
        let locals =
            (0..flows.div_ceil(FLOWS_PER_LOCAL)).map(|number| Family::Ipv4.address(Net::Locals, number));
        let locals: Vec<String> = locals.map(|address| format!("\"{address}\"")).collect();
        add(
            &mut text,
            format_args!("[[snat_pool]]\nname = \"locals\"\naddresses = [{}]\n", locals.join(", ")),
        );
    }
    add_neighbour(&mut text, link(GATEWAY), 0);
    let port = if matches!(mode, Mode::Nat | Mode::FullNat) { BACKEND_PORT } else { vip(0).port() };
    for service in 0..SERVICES {
        let (vip, backend) = (vip(service), backend(service, port));
        add_neighbour(&mut text, backend.ip(), 1 + service);
        let pool = if mode == Mode::FullNat { "snat_pool = \"locals\"\n" } else { "" };
        let service = format_args!(
            "[[service]]\nvip = \"{vip}\"\nprotocol = \"tcp\"\nmode = \"{mode}\"\nno_flow = \"schedule\"\n{pool}\
             [[service.backend]]\naddress = \"{backend}\"\n"
        );
        add(&mut text, service);
    }
    text
}

fn add_neighbour(text: &mut String, address: IpAddr, number: u32) {
    let [a, b] = (number as u16).to_be_bytes();
    add(
        text,
        format_args!("[[neighbour]]\naddress = \"{address}\"\nmac = \"06:00:00:00:{a:02x}:{b:02x}\"\n"),
    );
}

fn add(text: &mut String, more: std::fmt::Arguments) {
    // Writing to a string does not fail.
    let _ = text.write_fmt(more);
}
