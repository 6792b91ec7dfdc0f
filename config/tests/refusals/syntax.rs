//! What is no TOML, or not the keys and types of a configuration.

use super::{backend, base, check, refuse, service, with};

#[test]
fn toml_that_is_none() {
    refuse(&[
        ("a = \n".to_owned(), "t:1:5: string values must be quoted, expected literal string"),
        ("[cores]\nworkers = [1\n".to_owned(), "t:2:13: unclosed array, expected `]`"),
        (base("mtu = 1500", "mtu = 1500\nmtu = 1500"), "t:8:1: duplicate key, at `mtu`"),
        (
            with("[cores]\nworkers = [2]"),
            concat!("t:8:2: duplicate key, at `cores`", "\n", "t:9:1: duplicate key, at `workers`",),
        ),
        (
            base("name = \"lan\"", "name = \"län\" x"),
            "t:4:14: unexpected key or value, expected newline, `#`",
        ),
        (
            format!("x = {}", "[".repeat(100_000)).chars().take(90).collect(),
            concat!(
                "t:1:85: cannot recurse further; max recursion depth met, at `[`",
                "\n",
                "t:1:91: unclosed array, expected `]`",
            ),
        ),
    ]);
}

#[test]
fn unknown_keys() {
    refuse(&[
        (
            with("bogus = 1"),
            "t:8:1: port[0].bogus: unknown key; help: the keys here are `name`, `device`, `devices`, `addresses`, `mtu`, `mac`, `host`, `gateway`, `vlan`",
        ),
        (
            with("[[service]]\nvip = \"192.0.2.100:80\"\nprotocol = \"tcp\"\n  shceduler = \"rr\""),
            "t:11:3: service[0].shceduler: unknown key; help: did you mean `scheduler`?",
        ),
        (
            base("workers = [1]", "workers = [1]\nworker = 2"),
            "t:3:1: cores.worker: unknown key; help: did you mean `workers`?",
        ),
        (
            with("[dpdk]\nhuge_pages = false"),
            "t:9:1: dpdk.huge_pages: unknown key; help: did you mean `hugepages`?",
        ),
        (
            with("[[route]]\nto = \"0.0.0.0/0\"\nvia = \"192.0.2.1\"\nmetric = 1"),
            "t:11:1: route[0].metric: unknown key; help: the keys here are `to`, `via`",
        ),
        (
            with("[[neighbour]]\naddress = \"192.0.2.1\"\nmac = \"02:00:5e:00:53:01\"\nport = \"lan\""),
            "t:11:1: neighbour[0].port: unknown key; help: the keys here are `address`, `mac`",
        ),
        (
            with("[flow_table]\nsize = 1"),
            "t:9:1: flow_table.size: unknown key; help: the keys here are `capacity`, `wide_capacity`, `templates`",
        ),
        (
            with("[control]\npath = \"/run/x\""),
            "t:9:1: control.path: unknown key; help: the keys here are `socket`",
        ),
        (
            with("[metrics]\nlisten = \"127.0.0.1:9400\"\nlistener = 1"),
            "t:10:1: metrics.listener: unknown key; help: did you mean `listen`?",
        ),
        (
            backend("address = \"192.0.2.11:80\"\nwieght = 1"),
            "t:13:1: service[0].backend[0].wieght: unknown key; help: did you mean `weight`?",
        ),
        (
            check("kind = \"tcp\", intervall_ms = 1000"),
            "t:11:25: service[0].check.intervall_ms: unknown key; help: did you mean `interval_ms`?",
        ),
        (with("[[services]]\nvip = 1"), "t:8:3: services: unknown key; help: did you mean `service`?"),
        (
            with("\"a\\u001b[31m\" = 1"),
            r#"t:8:1: port[0].a\u{1b}[31m: unknown key; help: the keys here are `name`, `device`, `devices`, `addresses`, `mtu`, `mac`, `host`, `gateway`, `vlan`"#,
        ),
    ]);
}

#[test]
fn wrong_types() {
    refuse(&[
        (base("[1]", "1"), "t:2:11: cores.workers: expected an array, found an integer"),
        (
            base("[1]", "[1, \"2\", 3.0]"),
            concat!(
                "t:2:15: cores.workers[1]: expected an integer, found a string",
                "\n",
                "t:2:20: cores.workers[2]: expected an integer, found a float",
            ),
        ),
        (base("\"lan\"", "7"), "t:4:8: port[0].name: expected a string, found an integer"),
        (base("mtu = 1500", "mtu = \"1500\""), "t:7:7: port[0].mtu: expected an integer, found a string"),
        (
            base("[\"192.0.2.254/24\"]", "\"192.0.2.254/24\""),
            "t:6:13: port[0].addresses: expected an array, found a string",
        ),
        (
            with("[dpdk]\nhugepages = \"no\""),
            "t:9:13: dpdk.hugepages: expected true or false, found a string",
        ),
        (
            with("[[dpdk]]"),
            "t:8:1: dpdk: expected one table, found an array; help: write [dpdk], and only once",
        ),
        (
            with("[service]\nvip = \"192.0.2.100:80\""),
            "t:8:1: service: expected an array of tables; help: begin each with [[service]]",
        ),
        (
            with("[dpdk]\nmemory_mib = 1979-05-27"),
            "t:9:14: dpdk.memory_mib: expected an integer, found a date",
        ),
        (
            "cores = 1\nport = 2\nservice = [3]\nmetrics = true".to_owned(),
            concat!(
                "t:1:9: cores: expected a table, found an integer",
                "\n",
                "t:2:8: port: expected an array of tables; help: begin each with [[port]]",
                "\n",
                "t:3:11: service: expected an array of tables; help: begin each with [[service]]",
                "\n",
                "t:4:11: metrics: expected a table, found a boolean",
            ),
        ),
        (check("kind = { http = 1 }"), "t:11:18: service[0].check.kind: expected a string, found a table"),
        (
            service("vip = \"192.0.2.100:80\"\nprotocol = \"tcp\"\ncheck = \"http\""),
            "t:11:9: service[0].check: expected a table, found a string",
        ),
        (
            service("vip = \"192.0.2.100:80\"\nprotocol = \"tcp\"\n[[service.check]]\nkind = \"tcp\""),
            "t:11:1: service[0].check: expected one table, found an array; help: write [service.check], and only once",
        ),
        (
            service(
                "vip = \"192.0.2.100:80\"\nprotocol = \"tcp\"\n[service.backend]\naddress = \"192.0.2.11:80\"",
            ),
            "t:11:1: service[0].backend: expected an array of tables; help: begin each with [[service.backend]]",
        ),
    ]);
}

#[test]
fn missing_keys() {
    refuse(&[
        (
            String::new(),
            concat!(
                "t:1:1: cores.workers: this key is missing; help: add [cores] workers = [1]",
                "\n",
                "t:1:1: port: there is no port, so no packet could come or go; help: add a [[port]] with name, device and addresses",
            ),
        ),
        (base("workers = [1]\n", ""), "t:1:1: cores.workers: this key is missing; help: add workers = [1]"),
        (base("name = \"lan\"\n", ""), r#"t:3:1: port[0].name: this key is missing; help: add name = "lan""#),
        (
            base("device = \"net_null0\"\n", ""),
            r#"t:3:1: port[0].device: this key is missing; help: add device = "0000:03:00.0""#,
        ),
        (
            base("addresses = [\"192.0.2.254/24\"]\n", ""),
            r#"t:3:1: port[0].addresses: this key is missing; help: add addresses = ["192.0.2.254/24"]"#,
        ),
        (
            with("[[route]]\n[[neighbour]]\n[metrics]"),
            concat!(
                r#"t:8:1: route[0].to: this key is missing; help: add to = "0.0.0.0/0""#,
                "\n",
                r#"t:8:1: route[0].via: this key is missing; help: add via = "192.0.2.1""#,
                "\n",
                r#"t:9:1: neighbour[0].address: this key is missing; help: add address = "192.0.2.11""#,
                "\n",
                r#"t:9:1: neighbour[0].mac: this key is missing; help: add mac = "02:00:5e:00:53:0b""#,
                "\n",
                r#"t:10:1: metrics.listen: this key is missing; help: add listen = "127.0.0.1:9400""#,
            ),
        ),
        (
            with("[[service]]\n  [[service.backend]]"),
            concat!(
                r#"t:8:1: service[0].vip: this key is missing; help: add vip = "192.0.2.100:80""#,
                "\n",
                r#"t:8:1: service[0].protocol: this key is missing; help: add protocol = "tcp""#,
                "\n",
                r#"t:9:3: service[0].backend[0].address: this key is missing; help: add address = "192.0.2.11:80""#,
            ),
        ),
        (check("port = 80"), r#"t:11:9: service[0].check.kind: this key is missing; help: add kind = "tcp""#),
    ]);
}

#[test]
fn numbers_out_of_range() {
    refuse(&[
        (base("1500", "67"), "t:7:7: port[0].mtu: `67` is out of range; help: use a number from 68 to 9600"),
        (
            base("1500", "9601"),
            "t:7:7: port[0].mtu: `9601` is out of range; help: use a number from 68 to 9600",
        ),
        (base("1500", "-0x1"), "t:7:7: integers with a radix cannot be signed, expected nothing, at `-`"),
        (
            base("1500", "99999999999999999999999999999999999999999999"),
            "t:7:7: port[0].mtu: `99999999999999999999999999999999999999999999` is out of range; help: use a number from 68 to 9600",
        ),
        (
            base("[1]", "[1024]"),
            "t:2:12: cores.workers[0]: `1024` is out of range; help: use a number from 0 to 1023",
        ),
        (
            with("[dpdk]\nmemory_mib = 31"),
            "t:9:14: dpdk.memory_mib: `31` is out of range; help: use a number from 32 to 1048576",
        ),
        (
            with(
                "[flow_table]\ncapacity = 0\n[timeouts]\nsyn_recv_secs = 0\nudp_secs = -1\nnone_secs = 4_000_000_000",
            ),
            concat!(
                "t:9:12: flow_table.capacity: `0` is out of range; help: use a number from 1 to 1073741824",
                "\n",
                "t:11:17: timeouts.syn_recv_secs: `0` is out of range; help: use a number from 1 to 2592000",
                "\n",
                "t:12:12: timeouts.udp_secs: `-1` is out of range; help: use a number from 1 to 2592000",
                "\n",
                "t:13:13: timeouts.none_secs: `4000000000` is out of range; help: use a number from 1 to 2592000",
            ),
        ),
        (
            with("[flow_table]\ncapacity = 0x4000_0001"),
            "t:9:12: flow_table.capacity: `0x40000001` is out of range; help: use a number from 1 to 1073741824",
        ),
        (
            backend("address = \"192.0.2.11:80\"\nweight = 65536"),
            "t:13:10: service[0].backend[0].weight: `65536` is out of range; help: use a number from 0 to 65535",
        ),
        (
            backend("address = \"192.0.2.11:80\"\nupper = 0"),
            "t:13:9: service[0].backend[0].upper: `0` is out of range; help: use a number from 1 to 4294967295",
        ),
        (
            backend("address = \"192.0.2.11:80\"\nupper = 8\nlower = 9"),
            "t:14:9: service[0].backend[0].lower: with 9 flows a backend cannot take new ones again, for it never \
             has more than 8; help: use at most 8",
        ),
        (
            backend("address = \"192.0.2.11:80\"\nlower = 1"),
            "t:13:9: service[0].backend[0].lower: with 1 flows a backend cannot take new ones again, for it never \
             has more than 0; help: set upper as well, or remove this key",
        ),
        (
            backend("address = \"192.0.2.11:80\"\nweight = -1"),
            "t:13:10: service[0].backend[0].weight: `-1` is out of range; help: use a number from 0 to 65535",
        ),
        (
            check(
                "kind = \"http\", status = 99, rise = 0, fall = 101, port = 0, timeout_ms = 0, interval_ms = 0",
            ),
            concat!(
                "t:11:35: service[0].check.status: `99` is out of range; help: use a number from 100 to 599",
                "\n",
                "t:11:46: service[0].check.rise: `0` is out of range; help: use a number from 1 to 100",
                "\n",
                "t:11:56: service[0].check.fall: `101` is out of range; help: use a number from 1 to 100",
                "\n",
                "t:11:68: service[0].check.port: `0` is out of range; help: use a number from 1 to 65535",
                "\n",
                "t:11:84: service[0].check.timeout_ms: `0` is out of range; help: use a number from 1 to 86400000",
                "\n",
                "t:11:101: service[0].check.interval_ms: `0` is out of range; help: use a number from 1 to 86400000",
            ),
        ),
    ]);
}
