//! Binds the headers of the installed DPDK and compiles the shim for its inline functions.

use std::path::PathBuf;
use std::process::{Command, exit};
use std::{env, fs};

const OLDEST_DPDK: &str = "22.11";

/// Everything we call or look into; the whole of DPDK would be 18,000 lines of bindings.
const FUNCTIONS: &[&str] = &[
    "rte_eal_(cleanup|get_runtime_dir|init)",
    "rte_eth_dev_(adjust_nb_rx_tx_desc|close|configure|default_mac_addr_set)",
    "rte_eth_dev_(get_port_by_name|info_get|rss_reta_update|set_mtu|socket_id|start|stop)",
    "rte_eth_(link_get_nowait|macaddr_get|rx_queue_setup|stats_get|tx_queue_setup)",
    "rte_mempool_(avail_count|free)",
    "rte_pktmbuf_(free_bulk|pool_create)",
    "rte_strerror",
    "rte_thread_(register|unregister)",
    "rte_version",
    "trutina_.*",
];
const VARIABLES: &[&str] =
    &["rte_eth_fp_ops", "TRUTINA_.*", "RTE_ETH_RETA_GROUP_SIZE", "RTE_PKTMBUF_HEADROOM"];

fn main() {
    println!("cargo:rerun-if-changed=shim.h");
    println!("cargo:rerun-if-changed=shim.c");
    if let Err(why) = pkg_config::Config::new().atleast_version(OLDEST_DPDK).probe("libdpdk") {
        eprintln!(
            "error: DPDK {OLDEST_DPDK} or newer is not installed; pkg-config does not find it; \
             run `apt-get install libdpdk-dev dpdk pkg-config`\n\n{why}"
        );
        exit(1);
    }
    let flags = cflags();
    compile_shim(&flags);
    bind(&flags);
}

/// The C flags DPDK asks for. The pkg-config crate keeps only `-I` and `-D`, but DPDK's headers need its
/// `-march` and `-include rte_config.h` too.
fn cflags() -> Vec<String> {
    let output = Command::new("pkg-config")
        .args(["--cflags", "libdpdk"])
        .output()
        .expect("pkg-config was just run to find libdpdk");
    let text = String::from_utf8(output.stdout).expect("compiler flags are text");
    text.split_whitespace().map(str::to_owned).collect()
}

fn compile_shim(flags: &[String]) {
    let mut build = cc::Build::new();
    for flag in flags {
        build.flag(flag);
    }
    build.file("shim.c").opt_level(2).compile("trutina_dpdk_shim");
}

fn bind(flags: &[String]) {
    let mut builder = bindgen::builder()
        .header("shim.h")
        .clang_args(flags)
        .use_core()
        .layout_tests(true)
        .derive_default(true)
        .generate_comments(false)
        .prepend_enum_name(false);
    for name in FUNCTIONS {
        builder = builder.allowlist_function(name);
    }
    for name in VARIABLES {
        builder = builder.allowlist_var(name);
    }
    let bindings = builder.generate().unwrap_or_else(|why| {
        eprintln!(
            "error: the DPDK headers could not be bound; {why}; run `apt-get install libclang-dev clang`"
        );
        exit(1);
    });
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR")).join("bindings.rs");
    fs::write(&out, bindings.to_string()).expect("OUT_DIR is writable");
}
