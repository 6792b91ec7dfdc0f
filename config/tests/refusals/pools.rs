//! Pools of addresses, and classes of packets.

use super::{SERVICE, class, pool, refuse, with};

const POOL: &str = "[[snat_pool]]\nname = \"out\"\naddresses = [\"192.0.2.200\"]\n";

#[test]
fn pools() {
    refuse(&[
        (
            with("[[snat_pool]]"),
            concat!(
                r#"t:8:1: snat_pool[0].name: this key is missing; help: add name = "out""#,
                "\n",
                r#"t:8:1: snat_pool[0].addresses: this key is missing; help: add addresses = ["198.51.100.200", "198.51.100.208/29"]"#,
            ),
        ),
        (
            pool("[]"),
            r#"t:10:13: snat_pool[0].addresses: the pool has no address to speak from; help: write them as ["198.51.100.200", "198.51.100.208/29"]"#,
        ),
        (pool("\"192.0.2.200\""), "t:10:13: snat_pool[0].addresses: expected an array, found a string"),
        (
            pool("[\"192.0.2.200-201\"]"),
            "t:10:14: snat_pool[0].addresses[0]: `192.0.2.200-201` is not an address or prefix; help: write it as 198.51.100.200 or 198.51.100.208/29",
        ),
        (
            pool("[\"192.0.2.201/29\"]"),
            "t:10:14: snat_pool[0].addresses[0]: 192.0.2.201/29 has bits set behind its prefix length; help: write 192.0.2.200/29",
        ),
        (
            pool("[\"10.0.0.0/23\"]"),
            "t:10:14: snat_pool[0].addresses[0]: 10.0.0.0/23 has more than 256 addresses; help: use a longer prefix: one address is enough for tens of thousands of connections to each backend",
        ),
        (
            pool("[\"2001:db8::/64\"]"),
            "t:10:14: snat_pool[0].addresses[0]: 2001:db8::/64 has more than 256 addresses; help: use a longer prefix: one address is enough for tens of thousands of connections to each backend",
        ),
        (
            pool("[\"192.0.2.254\"]"),
            "t:10:14: snat_pool[0].addresses[0]: 192.0.2.254 is an address of the appliance itself; help: use the address of another host",
        ),
        (
            pool("[\"192.0.2.252/31\", \"192.0.2.248/29\"]"),
            "t:10:32: snat_pool[0].addresses[1]: 192.0.2.254 is an address of the appliance itself; help: use the address of another host",
        ),
        (
            pool("[\"192.0.2.0\"]"),
            "t:10:14: snat_pool[0].addresses[0]: 192.0.2.0 is the network address of 192.0.2.0/24; help: use the address of one host",
        ),
        (
            pool("[\"224.0.0.1\", \"::1\", \"fe80::1\", \"::ffff:192.0.2.200\"]"),
            concat!(
                "t:10:14: snat_pool[0].addresses[0]: 224.0.0.1 is a multicast address; help: use the address of one host",
                "\n",
                "t:10:27: snat_pool[0].addresses[1]: ::1 is the loopback address; help: use the address of one host",
                "\n",
                "t:10:34: snat_pool[0].addresses[2]: fe80::1 is a link-local address; help: use a global or unique local address: a link-local one names no interface, and the appliance makes its own by itself",
                "\n",
                "t:10:45: snat_pool[0].addresses[3]: ::ffff:192.0.2.200 is an IPv4 address mapped into IPv6; help: write the IPv4 address, 192.0.2.200",
            ),
        ),
        (
            pool("[\"192.0.2.200\", \"192.0.2.200\"]"),
            "t:10:29: snat_pool[0].addresses[1]: 192.0.2.200 is already on line 10; help: an address can be used once: remove one of them",
        ),
        (
            pool(
                "[\"192.0.2.200\"]\n[[snat_pool]]\nname = \"out\"\naddresses = [\"192.0.2.201\", \"192.0.2.200/31\"]",
            ),
            concat!(
                "t:12:8: snat_pool[1].name: out is already on line 9; help: remove one of them, or change it",
                "\n",
                "t:13:29: snat_pool[1].addresses[1]: 192.0.2.200 is already on line 10; help: an address can be used once: remove one of them",
            ),
        ),
        (
            pool("[\"10.0.0.0/24\", \"10.0.1.1\"]"),
            "t:10:29: snat_pool[0].addresses[1]: with this the pools have 257 addresses, but at most 256 are possible; help: remove some",
        ),
        (
            pool(
                "[\"192.0.2.200\"]\n[[snat_pool]]\nname = \"more\"\naddresses = [\"10.0.0.0/25\", \"10.0.0.128/25\"]",
            ),
            "t:13:29: snat_pool[1].addresses[1]: with this the pools have 257 addresses, but at most 256 are possible; help: remove some",
        ),
        (
            pool("[\"192.0.2.200\"]\nports = 1"),
            "t:11:1: snat_pool[0].ports: unknown key; help: the keys here are `name`, `addresses`",
        ),
        (
            with("[[snat_pool]]\nname = \"\"\naddresses = [\"192.0.2.200\"]"),
            "t:9:8: snat_pool[0].name: the name is empty, too long, or has spaces around it or control characters in it; help: use 1 to 64 printable characters",
        ),
    ]);
}

#[test]
fn addresses_of_pools_are_nobody_elses() {
    refuse(&[
        (
            with(&format!("{POOL}[[service]]\nvip = \"192.0.2.200:80\"\nprotocol = \"tcp\"")),
            "t:12:7: service[0].vip: 192.0.2.200 is an address of snat pool out; help: use another address, or take this one out of the pool",
        ),
        (
            with(&format!("{POOL}{SERVICE}address = \"192.0.2.200:80\"")),
            "t:15:11: service[0].backend[0].address: 192.0.2.200 is an address of snat pool out; help: use another address, or take this one out of the pool",
        ),
    ]);
}

#[test]
fn classes() {
    refuse(&[
        (class("dscp = 46"), r#"t:8:1: class[0].name: this key is missing; help: add name = "gold""#),
        (
            class("name = \"gold\""),
            "t:8:1: class[0]: this class has no condition, so every packet would be of it; help: add source, vlan or dscp",
        ),
        (
            class("name = \"gold\"\nsource = []"),
            "t:8:1: class[0]: this class has no condition, so every packet would be of it; help: add source, vlan or dscp",
        ),
        (
            class("name = \"best effort\"\ndscp = 0"),
            "t:9:8: class[0].name: `best effort` is not a name of a class; help: use 1 to 15 letters, digits, `-` and `_`",
        ),
        (
            class("name = \"sixteen-letters-\"\ndscp = 0"),
            "t:9:8: class[0].name: `sixteen-letters-` is not a name of a class; help: use 1 to 15 letters, digits, `-` and `_`",
        ),
        (
            class("name = \"\"\ndscp = 0"),
            "t:9:8: class[0].name: `` is not a name of a class; help: use 1 to 15 letters, digits, `-` and `_`",
        ),
        (
            class("name = \"gold\"\nsource = \"203.0.113.0/24\""),
            "t:10:10: class[0].source: expected an array, found a string",
        ),
        (
            class(
                "name = \"gold\"\nsource = [\"203.0.113.1/24\", \"203.0.113.1\", \"::ffff:203.0.113.0/120\"]",
            ),
            concat!(
                "t:10:11: class[0].source[0]: 203.0.113.1/24 has bits set behind its prefix length; help: write 203.0.113.0/24",
                "\n",
                "t:10:29: class[0].source[1]: `203.0.113.1` is not a prefix; help: write it as 203.0.113.0/24 or 2001:db8::/32",
                "\n",
                "t:10:44: class[0].source[2]: ::ffff:203.0.113.0 is an IPv4 address mapped into IPv6; help: write the IPv4 address, 203.0.113.0",
            ),
        ),
        (
            class("name = \"gold\"\nvlan = 0\ndscp = 64"),
            concat!(
                "t:10:8: class[0].vlan: `0` is out of range; help: use a number from 1 to 4094",
                "\n",
                "t:11:8: class[0].dscp: `64` is out of range; help: use a number from 0 to 63",
            ),
        ),
        (
            class("name = \"gold\"\ndscp = 46\n[[class]]\nname = \"gold\"\ndscp = 34"),
            "t:12:8: class[1].name: gold is already on line 9; help: remove one of them, or change it",
        ),
        (
            class("name = \"gold\"\nport = 80"),
            concat!(
                "t:8:1: class[0]: this class has no condition, so every packet would be of it; help: add source, vlan or dscp",
                "\n",
                "t:10:1: class[0].port: unknown key; help: the keys here are `name`, `source`, `vlan`, `dscp`",
            ),
        ),
    ]);
}
