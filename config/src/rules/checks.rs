//! What holds for the checks of a service.

use super::{Fault, Found};
use crate::limits;
use crate::model::{Agent, Check, CheckKind};
use crate::words::{Ports, Protocol, Scheduler};

/// A check of a service with this protocol and these ports.
pub(crate) fn check_faults(protocol: Protocol, ports: Ports, check: &Check) -> Vec<Found> {
    let ranges = [
        ("interval_ms", check.interval_ms, limits::CHECK_MS),
        ("timeout_ms", check.timeout_ms, limits::CHECK_MS),
        ("rise", check.rise, limits::CHECKS_IN_A_ROW),
        ("fall", check.fall, limits::CHECKS_IN_A_ROW),
    ];
    let ranges = ranges.into_iter().map(|(key, value, range)| (key, Fault::range(key, value, range)));
    let late = check.timeout_ms > check.interval_ms;
    let timeout = late.then_some(Fault::TimeoutOverInterval {
        timeout_ms: check.timeout_ms,
        interval_ms: check.interval_ms,
    });
    let port = match check.port {
        None if protocol == Protocol::Udp => Some(Fault::UdpCheckPort),
        None if ports.single().is_none() => Some(Fault::CheckPort),
        Some(0) => Some(Fault::PortZero),
        _ => None,
    };
    let faults = ranges.chain([("timeout_ms", timeout), ("port", port)]).chain(kind_faults(&check.kind));
    faults.filter_map(|(key, fault)| Some((key, fault?))).collect()
}

/// The agent of a service: only its scheduler heeds one, and needs it.
pub(crate) fn agent_use_fault(scheduler: Scheduler, has_agent: bool) -> Option<Found> {
    match (scheduler == Scheduler::DynamicRatio, has_agent) {
        (true, false) => Some(("scheduler", Fault::NoAgent)),
        (false, true) => Some(("agent", Fault::AgentScheduler)),
        _ => None,
    }
}

/// The numbers of an agent.
pub(crate) fn agent_faults(agent: &Agent) -> Vec<Found> {
    let Agent { port, interval_ms, timeout_ms } = *agent;
    let late = timeout_ms > interval_ms;
    let faults = [
        ("port", (port == 0).then_some(Fault::PortZero)),
        ("interval_ms", Fault::range("interval_ms", interval_ms, limits::CHECK_MS)),
        ("timeout_ms", Fault::range("timeout_ms", timeout_ms, limits::CHECK_MS)),
        ("timeout_ms", late.then_some(Fault::TimeoutOverInterval { timeout_ms, interval_ms })),
    ];
    faults.into_iter().filter_map(|(key, fault)| Some((key, fault?))).collect()
}

fn kind_faults(kind: &CheckKind) -> Vec<(&'static str, Option<Fault>)> {
    let CheckKind::Http { path, host, status, proxy: _ } = kind else { return Vec::new() };
    let status = status.and_then(|status| Fault::range("status", status, limits::HTTP_STATUS));
    let host = host.as_deref().and_then(check_host_fault);
    vec![("path", check_path_fault(path)), ("host", host), ("status", status)]
}

/// Request target of an HTTP check; anything else would end the request line early (RFC 9112, section 3).
pub(crate) fn check_path_fault(path: &str) -> Option<Fault> {
    (!path.starts_with('/') || !is_visible(path)).then_some(Fault::CheckPath)
}

/// Host header of an HTTP check; anything else would end the header early (RFC 9112, section 5).
pub(crate) fn check_host_fault(host: &str) -> Option<Fault> {
    (host.is_empty() || !is_visible(host)).then_some(Fault::CheckHost)
}

fn is_visible(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_graphic())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_and_status_of_checks_are_bounded() {
        let kind = |host: &str, status| CheckKind::Http {
            path: "/".to_owned(),
            host: Some(host.to_owned()),
            status: Some(status),
            proxy: None,
        };
        let count = |kind| kind_faults(&kind).into_iter().filter(|(_, fault)| fault.is_some()).count();
        assert_eq!(count(kind("www.example.org:8080", 100)), 0);
        assert_eq!(count(kind("", 599)), 1);
        assert_eq!(count(kind("a b", 600)), 2);
    }
}
