//! Cores, ports, addresses, routes, neighbours and sockets.

use super::{base, refuse, vlan, with};

#[test]
fn cores() {
    refuse(&[
        (
            base("[1]", "[]"),
            "t:2:11: cores.workers: there is no worker, so nothing would forward packets; help: name at least one core, such as workers = [1]",
        ),
        (
            base("[1]", "[1, 2, 1]"),
            "t:2:18: cores.workers[2]: core 1 is listed twice; help: give each worker a core of its own",
        ),
        (
            base("[1]", "[1, 0]"),
            "t:2:15: cores.workers[1]: core 0 is the control thread's; help: a worker polls without pause and would starve it: choose another core, or move [cores] control",
        ),
        (
            base("[1]", "[3]\ncontrol = 3"),
            "t:2:12: cores.workers[0]: core 3 is the control thread's; help: a worker polls without pause and would starve it: choose another core, or move [cores] control",
        ),
        (
            base("[1]", &format!("{:?}", (1..=65).collect::<Vec<_>>())),
            "t:2:259: cores.workers[64]: there are 65 of these, but at most 64 are possible; help: remove this one and those after it",
        ),
        (
            base("[1]", "[1]\nidle = \"sleeep\""),
            "t:3:8: cores.idle: unknown way to be idle `sleeep`; help: did you mean `sleep`?",
        ),
    ]);
}

#[test]
fn ports() {
    refuse(&[
        (
            "[cores]\nworkers = [1]".to_owned(),
            "t:1:1: port: there is no port, so no packet could come or go; help: add a [[port]] with name, device and addresses",
        ),
        (
            "port = []\n[cores]\nworkers = [1]".to_owned(),
            "t:1:8: port: there is no port, so no packet could come or go; help: add a [[port]] with name, device and addresses",
        ),
        (
            with("[[port]]\nname = \"lan\"\ndevice = \"net_null1\"\naddresses = []"),
            "t:9:8: port[1].name: lan is already on line 4; help: remove one of them, or change it",
        ),
        (
            with("[[port]]\nname = \"wan\"\ndevice = \"net_null0,size=64\"\naddresses = []"),
            "t:10:10: port[1].device: net_null0 is already on line 5; help: remove one of them, or change it",
        ),
        (
            base("net_null0", "eth0"),
            "t:5:10: port[0].device: `eth0` is neither a PCI address nor a software device; help: write 0000:03:00.0 for a NIC, or net_af_packet0,iface=eth0 for an interface of the kernel",
        ),
        (
            base("\"lan\"", "\" lan\""),
            "t:4:8: port[0].name: the name is empty, too long, or has spaces around it or control characters in it; help: use 1 to 64 printable characters",
        ),
        (
            base("mtu = 1500", "mac = \"03:00:5e:00:53:01\""),
            "t:7:7: port[0].mac: 03:00:5e:00:53:01 is not the MAC address of one station; help: use a unicast address, such as 02:00:5e:00:53:01",
        ),
        (
            base("mtu = 1500", "mac = \"00:00:00:00:00:00\""),
            "t:7:7: port[0].mac: 00:00:00:00:00:00 is not the MAC address of one station; help: use a unicast address, such as 02:00:5e:00:53:01",
        ),
        (
            base("mtu = 1500", "mac = \"02:00:5e:00:53\""),
            "t:7:7: port[0].mac: `02:00:5e:00:53` is not a MAC address; help: write it as 02:00:5e:00:53:01",
        ),
        (
            with(
                &(0..16)
                    .map(|n| format!("[[port]]\nname = \"p{n}\"\ndevice = \"net_tap{n}\"\naddresses = []\n"))
                    .collect::<String>(),
            ),
            "t:68:1: port[16]: there are 17 of these, but at most 16 are possible; help: remove this one and those after it",
        ),
    ]);
}

#[test]
fn own_addresses() {
    refuse(&[
        (
            base("192.0.2.254/24", "192.0.2.0/24"),
            "t:6:14: port[0].addresses[0]: 192.0.2.0 is the network address of 192.0.2.0/24; help: use the address of one host",
        ),
        (
            base("192.0.2.254/24", "192.0.2.255/24"),
            "t:6:14: port[0].addresses[0]: 192.0.2.255 is the broadcast address of 192.0.2.0/24; help: use the address of one host",
        ),
        (
            base("192.0.2.254/24", "224.0.0.1/24"),
            "t:6:14: port[0].addresses[0]: 224.0.0.1 is a multicast address; help: use the address of one host",
        ),
        (
            base("192.0.2.254/24", "127.0.0.1/8"),
            "t:6:14: port[0].addresses[0]: 127.0.0.1 is a loopback address; help: use the address of one host",
        ),
        (
            base("192.0.2.254/24", "0.0.0.0/0"),
            r#"t:6:14: port[0].addresses[0]: 0.0.0.0 is an address of "this network", 0.0.0.0/8; help: use the address of one host"#,
        ),
        (
            base("192.0.2.254/24", "255.255.255.255/32"),
            "t:6:14: port[0].addresses[0]: 255.255.255.255 is the broadcast address; help: use the address of one host",
        ),
        (
            base("192.0.2.254/24", "192.0.2.254"),
            "t:6:14: port[0].addresses[0]: `192.0.2.254` is not an address with prefix length; help: write it as 192.0.2.1/24 or 2001:db8::1/64",
        ),
        (
            base("192.0.2.254/24", "192.0.2.254/33"),
            "t:6:14: port[0].addresses[0]: `192.0.2.254/33` is not an address with prefix length; help: write it as 192.0.2.1/24 or 2001:db8::1/64",
        ),
        (
            base("[\"192.0.2.254/24\"]", "[\n  \"192.0.2.254/24\",\n  \"192.0.2.254/25\",\n]"),
            "t:8:3: port[0].addresses[1]: 192.0.2.254 is already on line 7; help: an address can be used once: remove one of them",
        ),
        (
            with(
                "[[port]]\nname = \"wan\"\ndevice = \"net_null1\"\naddresses = [\"198.51.100.1/24\", \"192.0.2.254/32\"]",
            ),
            "t:11:33: port[1].addresses[1]: 192.0.2.254 is already on line 6; help: an address can be used once: remove one of them",
        ),
        (
            with("[[port]]\nname = \"wan\"\ndevice = \"net_null1\"\naddresses = [\"192.0.2.1/25\"]"),
            "t:11:14: port[1].addresses[0]: 192.0.2.0/25 overlaps 192.0.2.0/24 of another interface, on line 6; help: give each interface prefixes of its own, or make these longer",
        ),
        (
            with("[[port]]\nname = \"wan\"\ndevice = \"net_null1\"\naddresses = [\"192.0.0.1/16\"]"),
            "t:11:14: port[1].addresses[0]: 192.0.0.0/16 overlaps 192.0.2.0/24 of another interface, on line 6; help: give each interface prefixes of its own, or make these longer",
        ),
    ]);
}

#[test]
fn routes() {
    refuse(&[
        (
            with("[[route]]\nto = \"10.0.0.1/8\"\nvia = \"192.0.2.1\""),
            "t:9:6: route[0].to: 10.0.0.1/8 has bits set behind its prefix length; help: write 10.0.0.0/8",
        ),
        (
            with("[[route]]\nto = \"10.0.0.0/8\"\nvia = \"198.51.100.1\""),
            "t:10:7: route[0].via: 198.51.100.1 is on no connected prefix; help: use an address within a prefix of some [[port]] or [[port.vlan]]",
        ),
        (
            with("[[route]]\nto = \"10.0.0.0/8\"\nvia = \"192.0.2.254\""),
            "t:10:7: route[0].via: 192.0.2.254 is an address of the appliance itself; help: use the address of another host",
        ),
        (
            with("[[route]]\nto = \"10.0.0.0/8\"\nvia = \"192.0.2.255\""),
            "t:10:7: route[0].via: 192.0.2.255 is the broadcast address of 192.0.2.0/24; help: use the address of one host",
        ),
        (
            with(
                "[[route]]\nto = \"10.0.0.0/8\"\nvia = \"192.0.2.1\"\n[[route]]\nto = \"10.0.0.0/8\"\nvia = \"192.0.2.2\"",
            ),
            "t:12:6: route[1].to: 10.0.0.0/8 is already on line 9; help: remove one of them, or change it",
        ),
        (
            with("[[route]]\nto = \"default\"\nvia = \"192.0.2.1/24\""),
            concat!(
                "t:9:6: route[0].to: `default` is not a prefix; help: write it as 198.51.100.0/24 or 2001:db8::/32, or 0.0.0.0/0 or ::/0 for a default route",
                "\n",
                "t:10:7: route[0].via: `192.0.2.1/24` is not an address; help: write it as 192.0.2.1 or 2001:db8::1",
            ),
        ),
    ]);
}

#[test]
fn neighbours() {
    refuse(&[
        (
            with("[[neighbour]]\naddress = \"198.51.100.1\"\nmac = \"02:00:5e:00:53:0b\""),
            "t:9:11: neighbour[0].address: 198.51.100.1 is on no connected prefix; help: use an address within a prefix of some [[port]] or [[port.vlan]]",
        ),
        (
            with("[[neighbour]]\naddress = \"192.0.2.254\"\nmac = \"02:00:5e:00:53:0b\""),
            "t:9:11: neighbour[0].address: 192.0.2.254 is an address of the appliance itself; help: use the address of another host",
        ),
        (
            with("[[neighbour]]\naddress = \"192.0.2.1\"\nmac = \"01:00:5e:00:00:01\""),
            "t:10:7: neighbour[0].mac: 01:00:5e:00:00:01 is not the MAC address of one station; help: use a unicast address, such as 02:00:5e:00:53:01",
        ),
        (
            with(
                "[[neighbour]]\naddress = \"192.0.2.1\"\nmac = \"02:00:5e:00:53:0b\"\n[[neighbour]]\naddress = \"192.0.2.1\"\nmac = \"02:00:5e:00:53:0c\"",
            ),
            "t:12:11: neighbour[1].address: 192.0.2.1 is already on line 9; help: remove one of them, or change it",
        ),
    ]);
}

#[test]
fn routes_of_both_ip_versions() {
    refuse(&[
        (
            with("[[route]]\nto = \"10.0.0.0/8\"\nvia = \"2001:db8::1\""),
            concat!(
                "t:10:7: route[0].via: 2001:db8::1 can not be the gateway to 10.0.0.0/8: they are of different IP versions; help: use a gateway of the destination's IP version",
                "\n",
                "t:10:7: route[0].via: 2001:db8::1 is on no connected prefix; help: use an address within a prefix of some [[port]] or [[port.vlan]]",
            ),
        ),
        (
            with("[[route]]\nto = \"::/0\"\nvia = \"192.0.2.1\""),
            "t:10:7: route[0].via: 192.0.2.1 can not be the gateway to ::/0: they are of different IP versions; help: use a gateway of the destination's IP version",
        ),
        (
            vlan(
                "id = 6\naddresses = [\"2001:db8::fe/64\"]\n[[route]]\nto = \"2001:db8:9::1/48\"\nvia = \"2001:db8:9::1\"",
            ),
            concat!(
                "t:12:6: route[0].to: 2001:db8:9::1/48 has bits set behind its prefix length; help: write 2001:db8:9::/48",
                "\n",
                "t:13:7: route[0].via: 2001:db8:9::1 is on no connected prefix; help: use an address within a prefix of some [[port]] or [[port.vlan]]",
            ),
        ),
        (
            vlan("id = 6\naddresses = [\"2001:db8::fe/64\"]\n[[route]]\nto = \"::/0\"\nvia = \"fe80::1\""),
            "t:13:7: route[0].via: fe80::1 is a link-local address; help: use a global or unique local address: a link-local one names no interface, and the appliance makes its own by itself",
        ),
        (
            vlan("id = 6\naddresses = [\"2001:db8::fe/64\"]\n[[route]]\nto = \"::/0\"\nvia = \"2001:db8::\""),
            "t:13:7: route[0].via: 2001:db8:: is the subnet-router anycast address of 2001:db8::/64; help: use the address of one host",
        ),
        (
            vlan(
                "id = 6\naddresses = [\"2001:db8::fe/64\"]\n[[route]]\nto = \"::/0\"\nvia = \"2001:db8::fe\"",
            ),
            "t:13:7: route[0].via: 2001:db8::fe is an address of the appliance itself; help: use the address of another host",
        ),
        (
            vlan(
                "id = 6\naddresses = [\"2001:db8::fe/64\"]\n[[route]]\nto = \"::/0\"\nvia = \"2001:db8::1\"\n[[route]]\nto = \"::/0\"\nvia = \"2001:db8::2\"",
            ),
            "t:15:6: route[1].to: ::/0 is already on line 12; help: remove one of them, or change it",
        ),
        (
            with("[[route]]\nto = \"::ffff:198.51.100.0/120\"\nvia = \"::ffff:192.0.2.1\""),
            concat!(
                "t:9:6: route[0].to: ::ffff:198.51.100.0 is an IPv4 address mapped into IPv6; help: write the IPv4 address, 198.51.100.0",
                "\n",
                "t:10:7: route[0].via: ::ffff:192.0.2.1 is an IPv4 address mapped into IPv6; help: write the IPv4 address, 192.0.2.1",
            ),
        ),
        (
            with("[[neighbour]]\naddress = \"fe80::1\"\nmac = \"02:00:5e:00:53:0b\""),
            "t:9:11: neighbour[0].address: fe80::1 is a link-local address; help: use a global or unique local address: a link-local one names no interface, and the appliance makes its own by itself",
        ),
        (
            with("[[neighbour]]\naddress = \"2001:db8::1\"\nmac = \"02:00:5e:00:53:0b\""),
            "t:9:11: neighbour[0].address: 2001:db8::1 is on no connected prefix; help: use an address within a prefix of some [[port]] or [[port.vlan]]",
        ),
    ]);
}

#[test]
fn sockets_and_names() {
    refuse(&[
        (
            with("[control]\nsocket = \"trutina.sock\""),
            "t:9:10: control.socket: `trutina.sock` is not an absolute path; help: begin it with a slash, such as /run/trutina.sock",
        ),
        (
            with(&format!("[control]\nsocket = \"/{}\"", "x".repeat(107))),
            "t:9:10: control.socket: the path has 108 bytes; help: a socket's path has at most 107 bytes",
        ),
        (
            with("[control]\nsocket = \"/run/a\\u0000b\""),
            r#"t:9:10: control.socket: `/run/a\u{0}b` is not an absolute path; help: begin it with a slash, such as /run/trutina.sock"#,
        ),
        (
            with("[metrics]\nlisten = \"0.0.0.0:9400\""),
            "t:9:10: metrics.listen: 0.0.0.0 is not a loopback address; help: the listener asks for no password: use 127.0.0.1:9400",
        ),
        (
            with("[metrics]\nlisten = \"127.0.0.1:0\""),
            "t:9:10: metrics.listen: port 0 is not a port; help: use a port from 1 to 65535",
        ),
        (
            with("[metrics]\nlisten = \"localhost:9400\""),
            "t:9:10: metrics.listen: `localhost:9400` is not an address and port; help: write it as 127.0.0.1:9400",
        ),
        (
            with("[dpdk]\nfile_prefix = \"../x\""),
            "t:9:15: dpdk.file_prefix: `../x` can not be part of a file name; help: use at most 64 letters, digits, `_`, `-` and `.`, a letter or digit first",
        ),
    ]);
}
