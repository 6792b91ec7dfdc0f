//! Tables of what was counted.

use controlplane::api::{
    ControlStats, Counters, Drop, LocalStats, PortStats, ServiceStatus, Stats, WorkerStats,
};

use super::tables::{table, text};

/// `trutina stats`.
pub fn stats(stats: &Stats) -> String {
    let balances: String = stats.workers.iter().enumerate().map(|(n, worker)| balance(n, worker)).collect();
    let control = control(&stats.control);
    let (ports, services) = (ports(&stats.ports), services(&stats.services));
    let locals = if stats.locals.is_empty() { String::new() } else { locals(&stats.locals) + "\n" };
    format!("{balances}{control}\n{ports}\n{locals}{services}")
}

/// Where the frames of one worker came from and went, as one equation.
fn balance(number: usize, worker: &WorkerStats) -> String {
    let WorkerStats {
        received, injected, taken_over, made, sent, punted, handed_over, dropped, held, ..
    } = worker;
    let sum = |counts: &[&u64]| counts.iter().map(|count| u128::from(**count)).sum::<u128>();
    let came = sum(&[received, injected, taken_over, made]);
    let went = sum(&[sent, punted, handed_over, dropped, held]);
    // The worker goes on while it is asked, so some frames may have come and not gone yet.
    let rest = match came.cmp(&went) {
        std::cmp::Ordering::Equal => String::new(),
        std::cmp::Ordering::Greater => format!(" + {} in hand", came - went),
        std::cmp::Ordering::Less => format!(" - {} that came meanwhile", went - came),
    };
    format!(
        "worker {number}: {received} received + {injected} injected + {taken_over} taken over + {made} made = \
         {sent} sent + {punted} punted + {handed_over} handed over + {dropped} dropped + {held} held{rest}\n"
    )
}

/// What became of the frames that the control thread was given.
fn control(stats: &ControlStats) -> String {
    let ControlStats { punted, from_host, answered, resolved, to_host, host_sent, waiting, dropped, .. } =
        stats;
    format!(
        "control: {punted} punted + {from_host} from host = {answered} answered + {resolved} resolved + \
         {to_host} to host + {host_sent} sent for host + {waiting} waiting + {dropped} dropped\n"
    )
}

/// Local addresses of full NAT, and how full they are.
fn locals(locals: &[LocalStats]) -> String {
    let mut list = table(&["LocalAddress", "Pool", "PortsUsed", "Ports"], 2..4);
    for local in locals {
        let pool = local.pool.as_deref().unwrap_or("-");
        let [used, all] = [local.ports_used, local.capacity].map(|count| count.to_string());
        list.add_row([&local.address.to_string(), pool, &used, &all]);
    }
    text(&list)
}

fn ports(ports: &[PortStats]) -> String {
    let headings =
        ["Port", "RxPkts", "RxBytes", "RxMissed", "RxErrors", "RxNoMbuf", "TxPkts", "TxBytes", "TxErrors"];
    let mut list = table(&headings, 1..9);
    for port in ports {
        let rx = [port.rx_packets, port.rx_bytes, port.rx_missed, port.rx_errors, port.rx_no_mbuf];
        let tx = [port.tx_packets, port.tx_bytes, port.tx_errors];
        list.add_row(row(&port.name, rx.into_iter().chain(tx)));
    }
    text(&list)
}

/// Services and their backends, with the columns of `ipvsadm -L --stats`.
fn services(services: &[ServiceStatus]) -> String {
    let mut list = table(&["Service", "Conns", "InPkts", "OutPkts", "InBytes", "OutBytes"], 1..6);
    for service in services {
        list.add_row(row(&service.service.to_string(), counts(&service.counters)));
        for backend in &service.backends {
            list.add_row(row(&format!("  -> {}", backend.address), counts(&backend.counters)));
        }
    }
    text(&list)
}

fn counts(of: &Counters) -> [u64; 5] {
    [of.conns, of.in_packets, of.out_packets, of.in_bytes, of.out_bytes]
}

/// `trutina drops`: one line for each reason, those that never happened only if `all`.
pub fn drops(drops: &[Drop], all: bool) -> String {
    let shown: Vec<_> = drops.iter().filter(|drop| all || drop.packets > 0).collect();
    if shown.is_empty() {
        return "no frame was dropped\n".to_owned();
    }
    let mut list = table(&["Reason", "Packets", "Meaning"], 1..2);
    for drop in shown {
        list.add_row([&drop.reason, &drop.packets.to_string(), &drop.meaning]);
    }
    text(&list)
}

fn row(name: &str, counts: impl IntoIterator<Item = u64>) -> impl Iterator<Item = String> {
    [name.to_owned()].into_iter().chain(counts.into_iter().map(|count| count.to_string()))
}

#[cfg(test)]
mod tests {
    use super::super::samples;
    use super::*;

    #[test]
    fn stats_show_the_balance_and_all_counts() {
        assert_eq!(
            stats(&samples::stats()),
            "\
worker 0: 103 received + 2 injected + 1 taken over + 2 made = 97 sent + 3 punted + 1 handed over + 4 dropped + 3 held
worker 1: 103 received + 2 injected + 1 taken over + 2 made = 97 sent + 3 punted + 1 handed over + 4 dropped + 3 held
control: 6 punted + 9 from host = 3 answered + 1 resolved + 2 to host + 7 sent for host + 1 waiting + 1 dropped

Port  RxPkts  RxBytes  RxMissed  RxErrors  RxNoMbuf  TxPkts  TxBytes  TxErrors
lan      100     6400         1         2         3      95     6080         4

LocalAddress     Pool  PortsUsed   Ports
198.51.100.200   out          12  129024
2001:db8:5::200  -             0  129024

Service                 Conns  InPkts  OutPkts  InBytes  OutBytes
tcp:192.0.2.100:80         42     420      378    42000    378000
  -> 198.51.100.7:8000     40     400      360    40000    360000
  -> 198.51.100.8:8000      2      20       18     2000     18000
udp:192.0.2.100:53          0       0        0        0         0
  -> 203.0.113.1:53         0       0        0        0         0
"
        );
    }

    #[test]
    fn frames_in_hand_keep_the_balance_true() {
        let mut worker = samples::stats().workers.remove(0);
        worker.received += 3;
        assert!(balance(0, &worker).ends_with("3 held + 3 in hand\n"));
        worker.received -= 5;
        assert!(balance(0, &worker).ends_with("3 held - 2 that came meanwhile\n"));
    }

    #[test]
    fn reasons_that_never_happened_are_shown_on_demand() {
        assert_eq!(
            drops(&samples::drops(), false),
            "\
Reason      Packets  Meaning
no_service        4  No service has this address, protocol and port.
"
        );
        assert_eq!(
            drops(&samples::drops(), true),
            "\
Reason      Packets  Meaning
no_service        4  No service has this address, protocol and port.
truncated         0  A header runs past the end of the frame.
"
        );
        assert_eq!(drops(&[], true), "no frame was dropped\n");
        assert_eq!(drops(&samples::drops()[1..], false), "no frame was dropped\n");
    }
}
