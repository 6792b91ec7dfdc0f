//! Ports, classes, options, tunnels and both IP versions of services.

use super::{backend, option, refuse, service, udp, with};

const SIX: &str = "[[port.vlan]]\nid = 6\naddresses = [\"2001:db8::fe/64\"]\n[[service]]\nvip = \"[2001:db8::100]:80\"\nprotocol = \"tcp\"\n[[service.backend]]\n";

const RANGE: &str = "[[service]]\nvip = \"192.0.2.100:8000-8099\"\nprotocol = \"tcp\"\n[[service.backend]]\n";

const FULL: &str = "[[snat_pool]]\nname = \"out\"\naddresses = [\"2001:db8:5::1\"]\n[[service]]\nvip = \"192.0.2.100:80\"\nprotocol = \"tcp\"\nmode = \"full-nat\"\n";

#[test]
fn vips() {
    refuse(&[
        (
            service("vip = \"192.0.2.100:90-80\"\nprotocol = \"udp\""),
            "t:9:7: service[0].vip: `192.0.2.100:90-80` is not an address and port; help: write it as 192.0.2.1:80 or [2001:db8::1]:80; 8000-8099 are several ports, and 0 is any",
        ),
        (
            service("vip = \"192.0.2.100:0-80\"\nprotocol = \"udp\""),
            "t:9:7: service[0].vip: `192.0.2.100:0-80` is not an address and port; help: write it as 192.0.2.1:80 or [2001:db8::1]:80; 8000-8099 are several ports, and 0 is any",
        ),
        (
            service("vip = \"192.0.2.100:80-65536\"\nprotocol = \"udp\""),
            "t:9:7: service[0].vip: `192.0.2.100:80-65536` is not an address and port; help: write it as 192.0.2.1:80 or [2001:db8::1]:80; 8000-8099 are several ports, and 0 is any",
        ),
        (
            service("vip = \"2001:db8::1:80\"\nprotocol = \"udp\""),
            "t:9:7: service[0].vip: `2001:db8::1:80` is not an address and port; help: write it as 192.0.2.1:80 or [2001:db8::1]:80; 8000-8099 are several ports, and 0 is any",
        ),
        (
            service("vip = \"[fe80::1]:80\"\nprotocol = \"udp\""),
            "t:9:7: service[0].vip: fe80::1 is a link-local address; help: use a global or unique local address: a link-local one names no interface, and the appliance makes its own by itself",
        ),
        (
            service("vip = \"[ff02::1]:80\"\nprotocol = \"udp\""),
            "t:9:7: service[0].vip: ff02::1 is a multicast address; help: use the address of one host",
        ),
        (
            service("vip = \"[::]:80\"\nprotocol = \"udp\""),
            "t:9:7: service[0].vip: :: is the unspecified address; help: use the address of one host",
        ),
        (
            service("vip = \"[::ffff:192.0.2.100]:80\"\nprotocol = \"udp\""),
            "t:9:7: service[0].vip: ::ffff:192.0.2.100 is an IPv4 address mapped into IPv6; help: write the IPv4 address, 192.0.2.100",
        ),
        (
            service("vip = \"[2001:db8::1%lan]:80\"\nprotocol = \"udp\""),
            "t:9:7: service[0].vip: `[2001:db8::1%lan]:80` is not an address and port; help: write it as 192.0.2.1:80 or [2001:db8::1]:80; 8000-8099 are several ports, and 0 is any",
        ),
        (
            service(
                "vip = \"192.0.2.100:80-90\"\nprotocol = \"tcp\"\n[[service]]\nvip = \"192.0.2.100:85-95\"\nprotocol = \"tcp\"",
            ),
            "t:12:7: service[1].vip: tcp:192.0.2.100:85-95 overlaps tcp:192.0.2.100:80-90, on line 9; help: move one of them, or widen one to all ports of the other, which then goes first",
        ),
        (
            service(
                "vip = \"192.0.2.100:80-90\"\nprotocol = \"tcp\"\n[[service]]\nvip = \"192.0.2.100:80-90\"\nprotocol = \"tcp\"",
            ),
            "t:12:7: service[1].vip: tcp:192.0.2.100:80-90 is already on line 9; help: remove one of them, or change it",
        ),
    ]);
}

#[test]
fn classes_of_services() {
    refuse(&[
        (
            option("class = \"gold\""),
            "t:11:9: service[0].class: there is no class `gold`; help: add a [[class]] with this name",
        ),
        (
            option("class = \"golden goose\""),
            "t:11:9: service[0].class: `golden goose` is not a name of a class; help: use 1 to 15 letters, digits, `-` and `_`",
        ),
        (
            with(
                "[[class]]\nname = \"gold\"\ndscp = 46\n[[service]]\nvip = \"192.0.2.100:80\"\nprotocol = \"tcp\"\nclass = \"glod\"\n",
            ),
            "t:14:9: service[0].class: there is no class `glod`; help: did you mean `gold`?",
        ),
        (
            with(
                "[[class]]\nname = \"gold\"\ndscp = 46\n[[service]]\nvip = \"192.0.2.100:80\"\nprotocol = \"tcp\"\nclass = \"gold\"\n[[service]]\nvip = \"192.0.2.100:80\"\nprotocol = \"tcp\"\nclass = \"gold\"\n",
            ),
            "t:16:7: service[1].vip: tcp:192.0.2.100:80@gold is already on line 12; help: remove one of them, or change it",
        ),
    ]);
}

#[test]
fn options() {
    refuse(&[
        (
            option("scheduler = \"dynamic-ratio\""),
            "t:11:13: service[0].scheduler: scheduler dynamic-ratio has no agent to ask; help: add agent = { port = 9999 }",
        ),
        (
            option("agent = { port = 9999 }"),
            "t:11:9: service[0].agent: only scheduler dynamic-ratio heeds an agent; help: remove agent, or set scheduler = \"dynamic-ratio\"",
        ),
        (
            option("scheduler = \"dynamic-ratio\"\nagent = { interval_ms = 500 }"),
            "t:12:9: service[0].agent.port: this key is missing; help: add port = 9999",
        ),
        (
            option(
                "scheduler = \"fastest\"\nmode = \"dr\"\n[[service.backend]]\naddress = \"192.0.2.11:80\"",
            ),
            "t:14:11: service[0].backend[0].address: scheduler fastest times the answers of backends, and mode dr does not see those of 192.0.2.11:80; help: use mode = \"nat\" or mode = \"full-nat\", or another scheduler",
        ),
        (
            service("vip = \"192.0.2.100:80\"\nprotocol = \"udp\"\nscheduler = \"fastest\""),
            "t:11:13: service[0].scheduler: scheduler fastest is only for tcp; help: remove it, or make this a tcp service",
        ),
        (
            option("no_backend = \"rts\""),
            "t:11:14: service[0].no_backend: unknown answer `rts`; help: did you mean `rst`?",
        ),
        (
            option("no_flow = \"icmp\""),
            "t:11:11: service[0].no_flow: unknown choice `icmp`; help: use one of `drop`, `rst`, `schedule`",
        ),
        (
            option("no_backend = \"sorry\""),
            "t:11:14: service[0].no_backend: unknown answer `sorry`; help: use one of `rst`, `icmp`, `drop`",
        ),
        (
            option("mss = 535"),
            "t:11:7: service[0].mss: `535` is out of range; help: use a number from 536 to 9000",
        ),
        (
            option("mss = 9001"),
            "t:11:7: service[0].mss: `9001` is out of range; help: use a number from 536 to 9000",
        ),
        (
            udp("mss = 1400"),
            "t:11:7: service[0].mss: mss is only for tcp; help: remove it, or make this a tcp service",
        ),
        (
            option("one_packet = true"),
            "t:11:14: service[0].one_packet: one_packet is only for udp; help: remove it, or make this a udp service",
        ),
        (
            option("one_packet = 1\necho = \"no\""),
            concat!(
                "t:11:14: service[0].one_packet: expected true or false, found an integer",
                "\n",
                "t:12:8: service[0].echo: expected true or false, found a string",
            ),
        ),
        (
            option("slow_start = { exponent = 0 }\nmin_active = 0\nquorum = { weight = 2, hysteresis = 2 }"),
            concat!(
                "t:11:14: service[0].slow_start.secs: this key is missing; help: add secs = 60",
                "\n",
                "t:11:27: service[0].slow_start.exponent: `0` is out of range; help: use a number from 0.1 to 10",
                "\n",
                "t:12:14: service[0].min_active: `0` is out of range; help: use a number from 1 to 1000000",
                "\n",
                "t:13:37: service[0].quorum.hysteresis: hysteresis is 2, not less than the quorum's weight, 2; help: set hysteresis to at most 1",
            ),
        ),
        (
            option("slow_start = 60\nfail_open = 101\non_down = \"rst\"\non_disabled = 1"),
            concat!(
                "t:11:14: service[0].slow_start: expected a table, found an integer",
                "\n",
                "t:12:13: service[0].fail_open: `101` is out of range; help: use a number from 1 to 100",
                "\n",
                "t:13:11: service[0].on_down: unknown fate of flows `rst`; help: did you mean `reset`?",
                "\n",
                "t:14:15: service[0].on_disabled: expected a string, found an integer",
            ),
        ),
        (
            option("snat_pool = \"out\""),
            "t:11:13: service[0].snat_pool: there is no snat pool `out`; help: add a [[snat_pool]] with this name",
        ),
        (option("snat_pool = [\"out\"]"), "t:11:13: service[0].snat_pool: expected a string, found an array"),
        (
            option("timeouts = { preset = \"linux\", established_secs = 0, udp_secs = 2592001, idle = 1 }"),
            concat!(
                "t:11:23: service[0].timeouts.preset: unknown preset `linux`; help: use one of `ipvs`, `dpvs`",
                "\n",
                "t:11:51: service[0].timeouts.established_secs: `0` is out of range; help: use a number from 1 to 2592000",
                "\n",
                "t:11:65: service[0].timeouts.udp_secs: `2592001` is out of range; help: use a number from 1 to 2592000",
                "\n",
                "t:11:74: service[0].timeouts.idle: unknown key; help: the keys here are `preset`, `none_secs`, `established_secs`, `syn_sent_secs`, `syn_recv_secs`, `fin_wait_secs`, `time_wait_secs`, `close_secs`, `close_wait_secs`, `last_ack_secs`, `listen_secs`, `synack_secs`, `udp_secs`",
            ),
        ),
        (option("timeouts = 900"), "t:11:12: service[0].timeouts: expected a table, found an integer"),
        (
            with("[timeouts]\npreset = \"dpsv\"\ntcp_secs = 900"),
            concat!(
                "t:9:10: timeouts.preset: unknown preset `dpsv`; help: did you mean `dpvs`?",
                "\n",
                "t:10:1: timeouts.tcp_secs: unknown key; help: did you mean `udp_secs`?",
            ),
        ),
        (
            with("[icmp]\nrate = -1\nno_service = \"reset\""),
            concat!(
                "t:9:8: icmp.rate: `-1` is out of range; help: use a number from 0 to 10000000",
                "\n",
                "t:10:14: icmp.no_service: unknown answer `reset`; help: use one of `rst`, `icmp`, `drop`",
            ),
        ),
        (
            with("[fragments]\ncapacity = 0\ntimeout_secs = 61\nremember_secs = 0"),
            concat!(
                "t:9:12: fragments.capacity: `0` is out of range; help: use a number from 1 to 1048576",
                "\n",
                "t:10:16: fragments.timeout_secs: `61` is out of range; help: use a number from 1 to 60",
                "\n",
                "t:11:17: fragments.remember_secs: `0` is out of range; help: use a number from 1 to 60",
            ),
        ),
        (
            with("[flow_table]\nwide_capacity = 0"),
            "t:9:17: flow_table.wide_capacity: `0` is out of range; help: use a number from 1 to 1073741824",
        ),
    ]);
}

#[test]
fn tunnels() {
    refuse(&[
        (
            option("tunnel = { type = \"gue\" }"),
            r#"t:11:10: service[0].tunnel: tunnel is only for mode tunnel; help: remove it, or set mode = "tunnel""#,
        ),
        (
            option("mode = \"tunnel\"\ntunnel = \"gue\""),
            "t:12:10: service[0].tunnel: expected a table, found a string",
        ),
        (
            option("mode = \"tunnel\"\ntunnel = { port = 6080 }"),
            r#"t:12:10: service[0].tunnel.type: this key is missing; help: add type = "gue""#,
        ),
        (
            option("mode = \"tunnel\"\ntunnel = { type = \"vxlan\" }"),
            "t:12:19: service[0].tunnel.type: unknown type of tunnel `vxlan`; help: use one of `ipip`, `gue`, `gre`",
        ),
        (
            option("mode = \"tunnel\"\ntunnel = { type = \"gre\", port = 6080 }"),
            r#"t:12:33: service[0].tunnel.port: a tunnel of type gre has no port; help: remove the port, or set type = "gue""#,
        ),
        (
            option("mode = \"tunnel\"\ntunnel = { type = \"ipip\", checksum = true }"),
            r#"t:12:38: service[0].tunnel.checksum: a tunnel of type ipip has no checksum; help: remove the checksum, or set type = "gue" or "gre""#,
        ),
        (
            option("mode = \"tunnel\"\ntunnel = { type = \"gue\", port = 0, checksum = 1 }"),
            concat!(
                "t:12:33: service[0].tunnel.port: `0` is out of range; help: use a number from 1 to 65535",
                "\n",
                "t:12:47: service[0].tunnel.checksum: expected true or false, found an integer",
            ),
        ),
        (
            backend("address = \"192.0.2.11:80\"\ntunnel = { type = \"ipip\" }"),
            r#"t:13:10: service[0].backend[0].tunnel: tunnel is only for mode tunnel; help: remove it, or set mode = "tunnel""#,
        ),
        (
            backend("address = \"192.0.2.11:80\"\nmode = \"dr\"\ntunnel = { type = \"gue\" }"),
            r#"t:14:10: service[0].backend[0].tunnel: tunnel is only for mode tunnel; help: remove it, or set mode = "tunnel""#,
        ),
    ]);
}

#[test]
fn spreads() {
    let by = |spread: &str| {
        option(&format!("mode = \"tunnel\"\ntunnel = {{ type = \"ipip\", spread = {spread} }}"))
    };
    refuse(&[
        (
            by("\"172.16.0.0\""),
            "t:12:36: service[0].tunnel.spread: `172.16.0.0` is not a prefix; help: write it as 172.16.0.0/16 or 2001:db8::/64",
        ),
        (by("true"), "t:12:36: service[0].tunnel.spread: expected a string, found a boolean"),
        (
            by("\"172.16.1.0/16\""),
            "t:12:36: service[0].tunnel.spread: 172.16.1.0/16 has bits set behind its prefix length; help: write 172.16.0.0/16",
        ),
        (
            by("\"172.16.0.0/31\""),
            "t:12:36: service[0].tunnel.spread: prefix length is 31, out of range; help: use a number from 8 to 30",
        ),
        (
            by("\"2001:db8:a::/128\""),
            "t:12:36: service[0].tunnel.spread: prefix length is 128, out of range; help: use a number from 32 to 126",
        ),
        (
            by("\"224.0.0.0/8\""),
            "t:12:36: service[0].tunnel.spread: 224.0.0.0/8 can not be the source addresses of a tunnel: 224.0.0.0 is a multicast address; help: use a prefix of addresses that nobody has",
        ),
        (
            by("\"192.0.2.240/28\""),
            "t:12:36: service[0].tunnel.spread: 192.0.2.240/28 can not be the source addresses of a tunnel: 192.0.2.254 is an address of the appliance itself; help: use a prefix of addresses that nobody has",
        ),
        (
            by("\"192.0.2.96/28\""),
            "t:12:36: service[0].tunnel.spread: 192.0.2.96/28 can not be the source addresses of a tunnel: 192.0.2.100 is the VIP; help: use a prefix of addresses that nobody has",
        ),
        (
            backend("address = \"192.0.2.11:80\"\ntunnel = { type = \"ipip\", spread = \"172.16.0.0/16\" }"),
            r#"t:13:10: service[0].backend[0].tunnel: tunnel is only for mode tunnel; help: remove it, or set mode = "tunnel""#,
        ),
    ]);
}

#[test]
fn spreads_beside_backends() {
    let default = |spread: &str, backends: &str| {
        option(&format!(
            "mode = \"tunnel\"\ntunnel = {{ type = \"gre\", spread = \"{spread}\" }}\nbackend = [{backends}]"
        ))
    };
    let (one, two) = ("{ address = \"192.0.2.11:80\" }", "{ address = \"192.0.2.12:80\" }");
    let three = "{ address = \"192.0.2.33:80\" }";
    refuse(&[
        (
            default("100::/64", one),
            "t:13:24: service[0].backend[0].address: a tunnel to backend 192.0.2.11:80 can not begin at 100::/64: they are of different IP versions; help: give this backend a tunnel of its own, with a spread of its IP version or without one",
        ),
        (
            default("192.0.2.8/29", &format!("{one}, {two}")),
            "t:12:35: service[0].tunnel.spread: 192.0.2.8/29 can not be the source addresses of a tunnel: 192.0.2.11 is a backend of the service; help: use a prefix of addresses that nobody has",
        ),
        (
            default(
                "172.16.0.0/16",
                "{ address = \"192.0.2.17:80\", tunnel = { type = \"gue\", spread = \"192.0.2.8/29\" } }, { address = \"192.0.2.12:80\", mode = \"dr\" }",
            ),
            "t:13:75: service[0].backend[0].tunnel.spread: 192.0.2.8/29 can not be the source addresses of a tunnel: 192.0.2.12 is a backend of the service; help: use a prefix of addresses that nobody has",
        ),
        (
            default("192.0.2.8/29", &format!("{three}]\nsorry = [{two}")),
            "t:12:35: service[0].tunnel.spread: 192.0.2.8/29 can not be the source addresses of a tunnel: 192.0.2.12 is a backend of the service; help: use a prefix of addresses that nobody has",
        ),
        (
            default(
                "172.16.0.0/16",
                &format!(
                    "{one}]\nsorry = [{{ address = \"192.0.2.17:80\", tunnel = {{ type = \"gue\", spread = \"192.0.2.8/29\" }} }}"
                ),
            ),
            "t:14:73: service[0].sorry[0].tunnel.spread: 192.0.2.8/29 can not be the source addresses of a tunnel: 192.0.2.11 is a backend of the service; help: use a prefix of addresses that nobody has",
        ),
        (
            default("127.0.0.0/8", &format!("{one}, {two}")),
            "t:12:35: service[0].tunnel.spread: 127.0.0.0/8 can not be the source addresses of a tunnel: 127.0.0.0 is a loopback address; help: use a prefix of addresses that nobody has",
        ),
        (
            backend(
                "address = \"192.0.2.11:80\"\nmode = \"tunnel\"\ntunnel = { type = \"gue\", spread = \"192.0.2.96/28\" }",
            ),
            "t:14:35: service[0].backend[0].tunnel.spread: 192.0.2.96/28 can not be the source addresses of a tunnel: 192.0.2.100 is the VIP; help: use a prefix of addresses that nobody has",
        ),
    ]);
}

#[test]
fn families() {
    refuse(&[
        (
            with(&format!("{SIX}address = \"192.0.2.11:80\"")),
            r#"t:15:11: service[0].backend[0].address: backend 192.0.2.11:80 and VIP 2001:db8::100 are of different IP versions, which mode nat does not translate; help: use mode = "full-nat" or mode = "tunnel", or a backend of the VIP's IP version"#,
        ),
        (
            with(&format!("{SIX}address = \"192.0.2.11:80\"\nmode = \"dr\"")),
            r#"t:15:11: service[0].backend[0].address: backend 192.0.2.11:80 and VIP 2001:db8::100 are of different IP versions, which mode dr does not translate; help: use mode = "full-nat" or mode = "tunnel", or a backend of the VIP's IP version"#,
        ),
        (
            with(&format!("{SIX}address = \"[2001:db8:9::11]:80\"\nmode = \"dr\"")),
            r#"t:15:11: service[0].backend[0].address: backend [2001:db8:9::11]:80 is not on the link of any interface, and mode dr reaches no further; help: use mode = "tunnel", or an address within a connected prefix"#,
        ),
        (
            with(&format!("{SIX}address = \"[2001:db8:9::11]:80\"")),
            "t:15:11: service[0].backend[0].address: no route leads to backend [2001:db8:9::11]:80; help: add a [[route]] to it, or a default route to ::/0",
        ),
        (
            with(&format!("{SIX}address = \"[2001:db8::]:80\"")),
            "t:15:11: service[0].backend[0].address: 2001:db8:: is the subnet-router anycast address of 2001:db8::/64; help: use the address of one host",
        ),
        (
            with(&format!("{SIX}address = \"[2001:db8::fe]:80\"")),
            "t:15:11: service[0].backend[0].address: 2001:db8::fe is an address of the appliance itself; help: use the address of another host",
        ),
        (
            with(&format!("{SIX}address = \"[2001:db8::100]:80\"")),
            "t:15:11: service[0].backend[0].address: backend [2001:db8::100]:80 has the address of the VIP; help: give the real server's own address",
        ),
        (
            with(&format!("{SIX}address = \"[fe80::11]:80\"")),
            "t:15:11: service[0].backend[0].address: fe80::11 is a link-local address; help: use a global or unique local address: a link-local one names no interface, and the appliance makes its own by itself",
        ),
        (
            with(&format!("{SIX}address = \"[2001:db8::11%2]:80\"")),
            "t:15:11: service[0].backend[0].address: [2001:db8::11%2]:80 has a zone; help: write [2001:db8::11]:80",
        ),
        (
            with(&format!("{SIX}address = \"[::ffff:192.0.2.11]:80\"")),
            "t:15:11: service[0].backend[0].address: ::ffff:192.0.2.11 is an IPv4 address mapped into IPv6; help: write the IPv4 address, 192.0.2.11",
        ),
        (
            with(&format!("{SIX}address = \"2001:db8::11\"")),
            "t:15:11: service[0].backend[0].address: `2001:db8::11` is not an address and port; help: write it as 192.0.2.1:80 or [2001:db8::1]:80",
        ),
    ]);
}

#[test]
fn full_nat() {
    refuse(&[
        (
            backend("address = \"192.0.2.11:8000\"\nmode = \"full-nat\""),
            r#"t:12:11: service[0].backend[0].address: backend 192.0.2.11:8000 needs a snat pool to be spoken to in mode full-nat, and its service names none; help: add snat_pool = "NAME" to the service, the name of a [[snat_pool]]"#,
        ),
        (
            with(&format!("{FULL}snat_pool = \"out\"\nbackend = [{{ address = \"192.0.2.11:80\" }}]")),
            "t:16:24: service[0].backend[0].address: snat pool out has no address of the IP version of backend 192.0.2.11:80; help: add one to the pool's addresses, or name another pool",
        ),
        (
            with(&format!("{FULL}snat_pool = \"uot\"\nbackend = [{{ address = \"192.0.2.11:80\" }}]")),
            "t:15:13: service[0].snat_pool: there is no snat pool `uot`; help: did you mean `out`?",
        ),
        (
            with(&format!("{FULL}snat_pool = 1\nbackend = [{{ address = \"192.0.2.11:80\" }}]")),
            "t:15:13: service[0].snat_pool: expected a string, found an integer",
        ),
        (
            with(
                "[[snat_pool]]\nname = \"out\"\naddresses = [\"192.0.2.200\"]\n[[service]]\nvip = \"192.0.2.100:53\"\nprotocol = \"udp\"\none_packet = true\nsnat_pool = \"out\"\nbackend = [{ address = \"192.0.2.11:53\", mode = \"full-nat\" }]",
            ),
            "t:16:24: service[0].backend[0].address: backend 192.0.2.11:53 can not be in mode full-nat, since its service keeps no flows; help: use another mode, or remove one_packet from the service",
        ),
    ]);
}

#[test]
fn client_addresses() {
    refuse(&[
        (
            option("client_address = \"x-forwarded-for\""),
            "t:11:18: service[0].client_address: unknown way to tell client addresses `x-forwarded-for`; help: use one of `none`, `proxy-v1`, `proxy-v2`, `proxy-v2-each`, `toa`",
        ),
        (
            option("client_address = \"proxy-v2-each\""),
            "t:11:18: service[0].client_address: client_address proxy-v2-each is only for udp; help: use client_address = \"proxy-v2\"",
        ),
        (
            udp("client_address = \"proxy-v1\""),
            "t:11:18: service[0].client_address: client_address proxy-v1 is only for tcp; help: use client_address = \"proxy-v2\", or remove it",
        ),
        (
            udp("client_address = \"toa\""),
            "t:11:18: service[0].client_address: client_address toa is only for tcp; help: use client_address = \"proxy-v2\", or remove it",
        ),
        (
            udp("client_address = \"proxy-v2\"\none_packet = true"),
            "t:11:18: service[0].client_address: client addresses can not be told by a service that keeps no flows; help: remove client_address or one_packet",
        ),
        (
            option("client_address = \"toa\"\nbackend = [{ address = \"192.0.2.11:80\" }]"),
            "t:12:24: service[0].backend[0].address: backend 192.0.2.11:80 is in mode nat, and client_address is only for mode full-nat; help: use mode = \"full-nat\", or remove client_address: in other modes backends see their clients",
        ),
    ]);
}

#[test]
fn ports_of_backends() {
    refuse(&[
        (
            with(&format!("{RANGE}address = \"192.0.2.11:65437\"")),
            "t:12:11: service[0].backend[0].address: backend 192.0.2.11:65437 has no 100 ports from 65437 on; help: begin at 65436 or lower, or use port 0 for the one that the client asked for",
        ),
        (
            with(&format!("{RANGE}address = \"192.0.2.11:8000\"\nmode = \"dr\"")),
            "t:12:11: service[0].backend[0].address: backend 192.0.2.11:8000 has port 8000, but mode dr leaves the service's port as it is; help: use port 0, which stands for the one that the client asked for",
        ),
        (
            with(&format!("{RANGE}address = \"192.0.2.11:8000\"\nmode = \"tunnel\"")),
            "t:12:11: service[0].backend[0].address: backend 192.0.2.11:8000 has port 8000, but mode tunnel leaves the service's port as it is; help: use port 0, which stands for the one that the client asked for",
        ),
        (
            with(
                "[[service]]\nvip = \"192.0.2.100:0\"\nprotocol = \"tcp\"\n[[service.backend]]\naddress = \"192.0.2.11:80\"",
            ),
            "t:12:11: service[0].backend[0].address: backend 192.0.2.11:80 has no 65535 ports from 80 on; help: begin at 1 or lower, or use port 0 for the one that the client asked for",
        ),
        (
            with(&format!("{RANGE}address = \"192.0.2.11:0\"\n[service.check]\nkind = \"tcp\"")),
            "t:13:1: service[0].check.port: the check of a service with several ports has no port to ask; help: add port = N, one that tells of all of them",
        ),
        (
            backend("address = \"192.0.2.11:0\""),
            "t:12:11: service[0].backend[0].address: port 0 is not a port; help: use a port from 1 to 65535",
        ),
    ]);
}

#[test]
fn modes_that_can_not_be_read_ask_for_nothing() {
    refuse(&[
        (
            option(
                "mode = \"full-nut\"\nbackend = [{ address = \"[2001:db8::11]:0\" }, { address = \"127.0.0.1:80\" }]",
            ),
            concat!(
                "t:11:8: service[0].mode: unknown mode `full-nut`; help: did you mean `full-nat`?",
                "\n",
                "t:12:58: service[0].backend[1].address: 127.0.0.1 is a loopback address; help: use the address of one host",
            ),
        ),
        (
            backend("address = \"[2001:db8::11]:80\"\nmode = 7\ntunnel = { type = \"gue\" }"),
            "t:13:8: service[0].backend[0].mode: expected a string, found an integer",
        ),
    ]);
}
