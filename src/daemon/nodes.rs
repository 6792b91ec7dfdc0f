//! Says when a worker's core and a NIC that it polls are on different NUMA nodes: then every frame crosses between
//! them.

use std::fs;

/// Warns, at the start, of workers that are far from a device they poll. `nodes` are those of a port's devices: of
/// the only one, which all workers poll, or of one for each; -1 is none. `cores` are by worker.
pub fn warn_if_far(port: &str, nodes: &[i32], cores: &[usize]) {
    for warning in warnings(port, nodes, cores, node_of) {
        tracing::warn!("{warning}");
    }
}

/// The node of a core, if the kernel knows of nodes: its directory has a link to it.
fn node_of(core: usize) -> Option<i32> {
    let entries = fs::read_dir(format!("/sys/devices/system/cpu/cpu{core}")).ok()?;
    entries.flatten().find_map(|entry| entry.file_name().to_str()?.strip_prefix("node")?.parse().ok())
}

/// What there is to say of one port.
fn warnings(
    port: &str,
    nodes: &[i32],
    cores: &[usize],
    node_of: impl Fn(usize) -> Option<i32>,
) -> Vec<String> {
    let known = |(&device, &core)| Some((device, core, node_of(core).filter(|_| device >= 0)?));
    let far = nodes.iter().cycle().zip(cores).filter_map(known).filter(|(device, _, node)| device != node);
    far.map(|(device, core, node)| {
        format!(
            "port {port}: its NIC is on NUMA node {device} and core {core} on node {node}, each packet costs more; \
             take the cores of workers from /sys/devices/system/node/node{device}/cpulist"
        )
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_is_far_from_its_nic_is_told() {
        let node_of = |core: usize| (core < 8).then_some(i32::from(core >= 4));
        assert!(warnings("out", &[0], &[1, 2], node_of).is_empty());
        assert!(warnings("out", &[0, 1], &[1, 4], node_of).is_empty(), "a device for each worker");
        assert!(warnings("out", &[-1], &[1, 4], node_of).is_empty(), "a device without a node");
        assert!(warnings("out", &[1], &[8], node_of).is_empty(), "a kernel without nodes");
        let far = warnings("out", &[1], &[3, 4], node_of);
        assert!(far.len() == 1 && far[0].contains("core 3 on node 0"), "{far:?}");
        assert!(far[0].contains("node1/cpulist"), "{far:?}");
    }
}
