//! Devices, VLANs, tap devices and gateways of ports, and their IPv6 addresses.

use super::{base, refuse, vlan, with};

#[test]
fn devices() {
    refuse(&[
        (
            base("device = \"net_null0\"", "device = \"net_null0\"\ndevices = [\"net_null1\"]"),
            "t:6:11: port[0].devices: the port has `device` already; help: keep one of them",
        ),
        (
            base("device = \"net_null0\"", "devices = []"),
            "t:5:11: port[0].devices: there is no device, so no packet could come or go; help: name one for each worker",
        ),
        (
            base("device = \"net_null0\"", "devices = \"net_null0\""),
            "t:5:11: port[0].devices: expected an array, found a string",
        ),
        (
            base("device = \"net_null0\"", "devices = [\"net_null0\", \"eth0\"]"),
            "t:5:25: port[0].devices[1]: `eth0` is neither a PCI address nor a software device; help: write 0000:03:00.0 for a NIC, or net_af_packet0,iface=eth0 for an interface of the kernel",
        ),
        (
            base("device = \"net_null0\"", "devices = [\"net_null0\", \"net_null1\"]"),
            "t:5:11: port[0].devices: there are 2 devices, but the number of workers is 1; help: name one for each worker, or a single one that has a queue for each",
        ),
        (
            base("device = \"net_null0\"", "devices = [\"net_null0\", \"net_null0,size=64\"]"),
            concat!(
                "t:5:11: port[0].devices: there are 2 devices, but the number of workers is 1; help: name one for each worker, or a single one that has a queue for each",
                "\n",
                "t:5:25: port[0].devices[1]: net_null0 is already on line 5; help: remove one of them, or change it",
            ),
        ),
        (
            with("[[port]]\nname = \"wan\"\ndevices = [\"net_null1\", \"net_null0\"]\naddresses = []"),
            concat!(
                "t:10:11: port[1].devices: there are 2 devices, but the number of workers is 1; help: name one for each worker, or a single one that has a queue for each",
                "\n",
                "t:10:25: port[1].devices[1]: net_null0 is already on line 5; help: remove one of them, or change it",
            ),
        ),
    ]);
}

#[test]
fn vlans() {
    refuse(&[
        (vlan("addresses = []"), "t:8:1: port[0].vlan[0].id: this key is missing; help: add id = 100"),
        (
            vlan("id = 7"),
            r#"t:8:1: port[0].vlan[0].addresses: this key is missing; help: add addresses = ["192.0.2.254/24"]"#,
        ),
        (
            vlan("id = 0\naddresses = []"),
            "t:9:6: port[0].vlan[0].id: `0` is out of range; help: use a number from 1 to 4094",
        ),
        (
            vlan("id = 4095\nouter = 0\naddresses = []"),
            concat!(
                "t:9:6: port[0].vlan[0].id: `4095` is out of range; help: use a number from 1 to 4094",
                "\n",
                "t:10:9: port[0].vlan[0].outer: `0` is out of range; help: use a number from 1 to 4094",
            ),
        ),
        (
            vlan("id = 7\naddresses = [\"198.51.100.1/24\"]\n[[port.vlan]]\nid = 7\naddresses = []"),
            "t:12:6: port[0].vlan[1].id: this VLAN of the port is already on line 9; help: remove one of them, or change it",
        ),
        (
            vlan(
                "id = 7\naddresses = [\"198.51.100.1/24\"]\n[[port.vlan]]\nid = 7\nouter = 9\naddresses = []\n[[port.vlan]]\nid = 7\nouter = 9\nname = \"x\"\naddresses = []",
            ),
            "t:16:6: port[0].vlan[2].id: this VLAN of the port is already on line 12; help: remove one of them, or change it",
        ),
        (
            vlan("id = 7\naddresses = [\"198.51.100.1/24\"]\nmtu = 1501"),
            "t:11:7: port[0].vlan[0].mtu: mtu is 1501, more than the port's, 1500; help: use at most 1500, or raise the port's mtu",
        ),
        (
            vlan("id = 7\naddresses = [\"198.51.100.1/24\"]\nmtu = 67"),
            "t:11:7: port[0].vlan[0].mtu: `67` is out of range; help: use a number from 68 to 9600",
        ),
        (
            vlan("id = 7\naddresses = [\"198.51.100.1/24\"]\nmac = \"02:00:5e:00:53:01\""),
            "t:11:1: port[0].vlan[0].mac: unknown key; help: the keys here are `id`, `outer`, `name`, `addresses`, `mtu`, `host`, `gateway`",
        ),
        (
            with("vlan = [7]"),
            "t:8:8: port[0].vlan: expected an array of tables; help: begin each with [[port.vlan]]",
        ),
    ]);
}

#[test]
fn names() {
    refuse(&[
        (
            vlan("id = 7\naddresses = [\"198.51.100.1/24\"]\nname = \"lan\""),
            "t:11:8: port[0].vlan[0].name: lan is already on line 4; help: remove one of them, or change it",
        ),
        (
            vlan(
                "id = 7\naddresses = [\"198.51.100.1/24\"]\n[[port]]\nname = \"lan.7\"\ndevice = \"net_null1\"\naddresses = []",
            ),
            "t:12:8: port[1].name: lan.7 is already on line 8; help: remove one of them, or change it",
        ),
        (
            vlan(
                "id = 7\naddresses = [\"198.51.100.1/24\"]\n[[port]]\nname = \"wan\"\ndevice = \"net_null1\"\n[[port.vlan]]\nid = 1\nname = \"lan.7\"\naddresses = []",
            ),
            "t:16:8: port[1].vlan[0].name: lan.7 is already on line 8; help: remove one of them, or change it",
        ),
        (
            vlan("id = 7\naddresses = [\"198.51.100.1/24\"]\nname = \"\""),
            "t:11:8: port[0].vlan[0].name: the name is empty, too long, or has spaces around it or control characters in it; help: use 1 to 64 printable characters",
        ),
    ]);
}

#[test]
fn taps() {
    refuse(&[
        (
            with("host = \"\""),
            "t:8:8: port[0].host: `` is not a name of a tap device; help: use 1 to 15 letters, digits, `_`, `-` and `.`",
        ),
        (
            with("host = \"sixteen-letters.\""),
            "t:8:8: port[0].host: `sixteen-letters.` is not a name of a tap device; help: use 1 to 15 letters, digits, `_`, `-` and `.`",
        ),
        (
            with("host = \"tap lan\""),
            "t:8:8: port[0].host: `tap lan` is not a name of a tap device; help: use 1 to 15 letters, digits, `_`, `-` and `.`",
        ),
        (
            with("host = \"tap/lan\""),
            "t:8:8: port[0].host: `tap/lan` is not a name of a tap device; help: use 1 to 15 letters, digits, `_`, `-` and `.`",
        ),
        (
            with("host = \"..\""),
            "t:8:8: port[0].host: `..` is not a name of a tap device; help: use 1 to 15 letters, digits, `_`, `-` and `.`",
        ),
        (with("host = true"), "t:8:8: port[0].host: expected a string, found a boolean"),
        (
            with("host = \"tap\"\n[[port.vlan]]\nid = 7\naddresses = [\"198.51.100.1/24\"]\nhost = \"tap\""),
            "t:12:8: port[0].vlan[0].host: tap is already on line 8; help: remove one of them, or change it",
        ),
    ]);
}

#[test]
fn gateways() {
    refuse(&[
        (
            with("gateway = \"yes\""),
            "t:8:11: port[0].gateway: expected true, false or a table, found a string",
        ),
        (
            with("gateway = { pool = \"out\" }"),
            "t:8:13: port[0].gateway.pool: unknown key; help: the keys here are `snat_pool`",
        ),
        (
            with("gateway = { snat_pool = 1 }"),
            "t:8:25: port[0].gateway.snat_pool: expected a string, found an integer",
        ),
        (
            with("gateway = { snat_pool = \"out\" }"),
            "t:8:25: port[0].gateway.snat_pool: there is no snat pool `out`; help: add a [[snat_pool]] with this name",
        ),
        (
            with(
                "gateway = { snat_pool = \"uot\" }\n[[snat_pool]]\nname = \"out\"\naddresses = [\"192.0.2.200\"]",
            ),
            "t:8:25: port[0].gateway.snat_pool: there is no snat pool `uot`; help: did you mean `out`?",
        ),
        (
            with(
                "gateway = { snat_pool = \"out\" }\n[[snat_pool]]\nname = \"out\"\naddresses = [\"2001:db8:5::1\"]",
            ),
            "t:8:25: port[0].gateway.snat_pool: snat pool out has no address of an IP version that this interface has; help: add one to the pool's addresses, or name another pool",
        ),
        (
            vlan("id = 7\naddresses = []\ngateway = true"),
            "t:11:11: port[0].vlan[0].gateway: there is no address that the hosts of the link could have as their gateway; help: add one to addresses, or remove this key",
        ),
    ]);
}

#[test]
fn own_ipv6_addresses() {
    refuse(&[
        (
            base("192.0.2.254/24", "fe80::1/64"),
            "t:6:14: port[0].addresses[0]: fe80::1 is a link-local address; help: use a global or unique local address: a link-local one names no interface, and the appliance makes its own by itself",
        ),
        (
            base("192.0.2.254/24", "::1/128"),
            "t:6:14: port[0].addresses[0]: ::1 is the loopback address; help: use the address of one host",
        ),
        (
            base("192.0.2.254/24", "::/0"),
            "t:6:14: port[0].addresses[0]: :: is the unspecified address; help: use the address of one host",
        ),
        (
            base("192.0.2.254/24", "ff02::1/64"),
            "t:6:14: port[0].addresses[0]: ff02::1 is a multicast address; help: use the address of one host",
        ),
        (
            base("192.0.2.254/24", "2001:db8::/64"),
            "t:6:14: port[0].addresses[0]: 2001:db8:: is the subnet-router anycast address of 2001:db8::/64; help: use the address of one host",
        ),
        (
            base("192.0.2.254/24", "::ffff:192.0.2.254/120"),
            "t:6:14: port[0].addresses[0]: ::ffff:192.0.2.254 is an IPv4 address mapped into IPv6; help: write the IPv4 address, 192.0.2.254",
        ),
        (
            base("192.0.2.254/24", "2001:db8::fe"),
            "t:6:14: port[0].addresses[0]: `2001:db8::fe` is not an address with prefix length; help: write it as 192.0.2.1/24 or 2001:db8::1/64",
        ),
        (
            base("192.0.2.254/24", "2001:db8::fe/129"),
            "t:6:14: port[0].addresses[0]: `2001:db8::fe/129` is not an address with prefix length; help: write it as 192.0.2.1/24 or 2001:db8::1/64",
        ),
        (
            base("\"192.0.2.254/24\"]\nmtu = 1500", "\"192.0.2.254/24\", \"2001:db8::fe/64\"]\nmtu = 1279"),
            "t:7:7: port[0].mtu: mtu is 1279, too small for IPv6; help: use at least 1280, or remove the IPv6 addresses",
        ),
        (
            vlan("id = 7\nmtu = 1000\naddresses = [\"2001:db8::fe/64\"]"),
            "t:10:7: port[0].vlan[0].mtu: mtu is 1000, too small for IPv6; help: use at least 1280, or remove the IPv6 addresses",
        ),
        (
            base("\"192.0.2.254/24\"", "\"2001:db8::fe/64\", \"2001:db8::fe/128\""),
            "t:6:33: port[0].addresses[1]: 2001:db8::fe is already on line 6; help: an address can be used once: remove one of them",
        ),
        (
            vlan(
                "id = 7\naddresses = [\"2001:db8::fe/64\"]\n[[port.vlan]]\nid = 8\naddresses = [\"2001:db8::1:fe/112\"]",
            ),
            "t:13:14: port[0].vlan[1].addresses[0]: 2001:db8::1:0/112 overlaps 2001:db8::/64 of another interface, on line 10; help: give each interface prefixes of its own, or make these longer",
        ),
        (
            vlan("id = 7\naddresses = [\"192.0.2.1/24\"]"),
            "t:10:14: port[0].vlan[0].addresses[0]: 192.0.2.0/24 overlaps 192.0.2.0/24 of another interface, on line 6; help: give each interface prefixes of its own, or make these longer",
        ),
    ]);
}
