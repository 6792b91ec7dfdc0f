//! Services, backends and checks.

use super::{backend, check, refuse, service, with};

#[test]
fn services() {
    refuse(&[
        (
            backend(
                "address = \"192.0.2.11:8000\"\n[[service.sorry]]\naddress = \"192.0.2.11:8000\"\npriority = 1",
            ),
            concat!(
                "t:14:11: service[0].sorry[0].address: backend 192.0.2.11:8000 is listed twice; help: remove one of them, and give the other more weight",
                "\n",
                "t:15:1: service[0].sorry[0].priority: unknown key; help: the keys here are `address`, `mode`, `tunnel`, `weight`, `server_id`, `upper`, `lower`, `admin`",
            ),
        ),
        (
            service(
                "vip = \"192.0.2.100:80\"\nprotocol = \"tcp\"\n[[service]]\nprotocol = \"tcp\"\nvip = \"192.0.2.100:80\"",
            ),
            "t:13:7: service[1].vip: tcp:192.0.2.100:80 is already on line 9; help: remove one of them, or change it",
        ),
        (
            service("vip = \"224.0.0.1:80\"\nprotocol = \"udp\""),
            "t:9:7: service[0].vip: 224.0.0.1 is a multicast address; help: use the address of one host",
        ),
        (
            service("vip = \"255.255.255.255:80\"\nprotocol = \"udp\""),
            "t:9:7: service[0].vip: 255.255.255.255 is the broadcast address; help: use the address of one host",
        ),
        (
            service("vip = \"127.0.0.1:80\"\nprotocol = \"udp\""),
            "t:9:7: service[0].vip: 127.0.0.1 is a loopback address; help: use the address of one host",
        ),
        (
            service("vip = \"0.0.0.0:80\"\nprotocol = \"udp\""),
            r#"t:9:7: service[0].vip: 0.0.0.0 is an address of "this network", 0.0.0.0/8; help: use the address of one host"#,
        ),
        (
            service("vip = \"192.0.2.255:80\"\nprotocol = \"udp\""),
            "t:9:7: service[0].vip: 192.0.2.255 is the broadcast address of 192.0.2.0/24; help: use the address of one host",
        ),
        (
            service("vip = \"192.0.2.100\"\nprotocol = \"udp\""),
            "t:9:7: service[0].vip: `192.0.2.100` is not an address and port; help: write it as 192.0.2.1:80 or [2001:db8::1]:80; 8000-8099 are several ports, and 0 is any",
        ),
        (
            service("vip = \"www.example.org:80\"\nprotocol = \"udp\""),
            "t:9:7: service[0].vip: `www.example.org:80` is not an address and port; help: write it as 192.0.2.1:80 or [2001:db8::1]:80; 8000-8099 are several ports, and 0 is any",
        ),
        (
            service("vip = \"192.0.2.100:65536\"\nprotocol = \"udp\""),
            "t:9:7: service[0].vip: `192.0.2.100:65536` is not an address and port; help: write it as 192.0.2.1:80 or [2001:db8::1]:80; 8000-8099 are several ports, and 0 is any",
        ),
        (
            service("vip = \"192.0.2.100:80\"\nprotocol = \"sctp\""),
            "t:10:12: service[0].protocol: unknown protocol `sctp`; help: use one of `tcp`, `udp`",
        ),
        (
            service("vip = \"192.0.2.100:80\"\nprotocol = \"tcp\"\n  scheduler = \"wr\""),
            "t:11:15: service[0].scheduler: unknown scheduler `wr`; help: did you mean `wrr`?",
        ),
        (
            service("vip = \"192.0.2.100:80\"\nprotocol = \"tcp\"\nscheduler = \"weighted\""),
            "t:11:13: service[0].scheduler: unknown scheduler `weighted`; help: use one of `rr`, `wrr`, `lc`, `wlc`, `sed`, `nq`, \
             `fo`, `ovf`, `twos`, `lblc`, `lblcr`, `dh`, `sh`, `mh`, `maglev`, `bounded`, `quic`, `swrr`, `random`, `p2c`, \
             `least-bandwidth`, `least-packets`, `fastest`, `dynamic-ratio`, `observed`, `predictive`",
        ),
        (
            service(
                "vip = \"192.0.2.100:80\"\nprotocol = \"tcp\"\nscheduler = \"maglev\"\nhash = { table_size = 1000 }",
            ),
            "t:12:23: service[0].hash.table_size: a table of scheduler maglev cannot have 1000 slots; help: use 1009",
        ),
        (
            service(
                "vip = \"192.0.2.100:80\"\nprotocol = \"tcp\"\nscheduler = \"mh\"\nhash = { table_size = 65537 }",
            ),
            "t:12:23: service[0].hash.table_size: a table of scheduler mh cannot have 65537 slots; help: use 131071",
        ),
        (
            service(
                "vip = \"192.0.2.100:80\"\nprotocol = \"tcp\"\nscheduler = \"sh\"\nhash = { on = \"five-tuple\" }",
            ),
            "t:12:15: service[0].hash.on: scheduler sh hashes source or source-port only, as in IPVS; help: use \
             scheduler = \"maglev\" for other parts",
        ),
        (
            service("vip = \"192.0.2.100:80\"\nprotocol = \"tcp\"\nhash = { fallback = true }"),
            "t:11:21: service[0].hash.fallback: scheduler wlc has no use for fallback; help: remove fallback",
        ),
        (
            service(
                "vip = \"192.0.2.100:80\"\nprotocol = \"tcp\"\nscheduler = \"bounded\"\nhash = { load_factor = 1 }",
            ),
            "t:12:24: service[0].hash.load_factor: `1` is out of range; help: use a number from 1.01 to 100",
        ),
        (
            with("[cluster]\nsecret = \"too short\""),
            "t:9:10: cluster.secret: the secret is too short or too long; help: use 16 to 128 characters, such as those \
             of `openssl rand -hex 16`",
        ),
        (
            service("vip = \"192.0.2.100:80\"\nprotocol = \"tcp\"\nmode = \"NAT\""),
            "t:11:8: service[0].mode: unknown mode `NAT`; help: did you mean `nat`?",
        ),
        (
            service("vip = \"192.0.2.100:80\"\nprotocol = \"tcp\"\nname = \"\""),
            "t:11:8: service[0].name: the name is empty, too long, or has spaces around it or control characters in it; help: use 1 to 64 printable characters",
        ),
        (
            service("vip = \"192.0.2.100:80\"\nprotocol = \"tcp\"\nname = \"a\\nb\""),
            "t:11:8: service[0].name: the name is empty, too long, or has spaces around it or control characters in it; help: use 1 to 64 printable characters",
        ),
    ]);
}

#[test]
fn backends() {
    refuse(&[
        (
            backend("address = \"224.0.0.1:80\""),
            "t:12:11: service[0].backend[0].address: 224.0.0.1 is a multicast address; help: use the address of one host",
        ),
        (
            backend("address = \"255.255.255.255:80\""),
            "t:12:11: service[0].backend[0].address: 255.255.255.255 is the broadcast address; help: use the address of one host",
        ),
        (
            backend("address = \"192.0.2.255:80\""),
            "t:12:11: service[0].backend[0].address: 192.0.2.255 is the broadcast address of 192.0.2.0/24; help: use the address of one host",
        ),
        (
            backend("address = \"127.0.0.1:80\""),
            "t:12:11: service[0].backend[0].address: 127.0.0.1 is a loopback address; help: use the address of one host",
        ),
        (
            backend("address = \"0.0.0.0:80\""),
            r#"t:12:11: service[0].backend[0].address: 0.0.0.0 is an address of "this network", 0.0.0.0/8; help: use the address of one host"#,
        ),
        (
            backend("address = \"192.0.2.11:0\""),
            "t:12:11: service[0].backend[0].address: port 0 is not a port; help: use a port from 1 to 65535",
        ),
        (
            backend("address = \"192.0.2.11\""),
            "t:12:11: service[0].backend[0].address: `192.0.2.11` is not an address and port; help: write it as 192.0.2.1:80 or [2001:db8::1]:80",
        ),
        (
            backend("address = \"192.0.2.254:80\""),
            "t:12:11: service[0].backend[0].address: 192.0.2.254 is an address of the appliance itself; help: use the address of another host",
        ),
        (
            backend("address = \"192.0.2.100:8000\""),
            "t:12:11: service[0].backend[0].address: backend 192.0.2.100:8000 has the address of the VIP; help: give the real server's own address",
        ),
        (
            backend("address = \"198.51.100.1:80\""),
            "t:12:11: service[0].backend[0].address: no route leads to backend 198.51.100.1:80; help: add a [[route]] to it, or a default route to 0.0.0.0/0",
        ),
        (
            backend(
                "address = \"192.0.2.11:80\"\n[[service.backend]]\naddress = \"192.0.2.12:80\"\n[[service.backend]]\naddress = \"192.0.2.11:80\"\nmode = \"dr\"",
            ),
            "t:16:11: service[0].backend[2].address: 192.0.2.11:80 is already on line 12; help: remove one of them, or change it",
        ),
        (
            backend("address = \"198.51.100.1:80\"\nmode = \"dr\""),
            r#"t:12:11: service[0].backend[0].address: backend 198.51.100.1:80 is not on the link of any interface, and mode dr reaches no further; help: use mode = "tunnel", or an address within a connected prefix"#,
        ),
        (
            backend("address = \"198.51.100.1:80\"\nmode = \"tunnel\""),
            "t:12:11: service[0].backend[0].address: no route leads to backend 198.51.100.1:80; help: add a [[route]] to it, or a default route to 0.0.0.0/0",
        ),
        (
            backend("address = \"192.0.2.11:8000\"\nmode = \"dr\""),
            r#"t:12:11: service[0].backend[0].address: backend 192.0.2.11:8000 has port 8000, but mode dr leaves the service's port as it is; help: use port 80, or mode = "nat" to change the port"#,
        ),
        (
            backend("address = \"192.0.2.11:8000\"\nmode = \"tunnel\""),
            r#"t:12:11: service[0].backend[0].address: backend 192.0.2.11:8000 has port 8000, but mode tunnel leaves the service's port as it is; help: use port 80, or mode = "nat" to change the port"#,
        ),
        (
            backend("address = \"198.51.100.1:8000\"\nmode = \"dr\""),
            concat!(
                r#"t:12:11: service[0].backend[0].address: backend 198.51.100.1:8000 has port 8000, but mode dr leaves the service's port as it is; help: use port 80, or mode = "nat" to change the port"#,
                "\n",
                r#"t:12:11: service[0].backend[0].address: backend 198.51.100.1:8000 is not on the link of any interface, and mode dr reaches no further; help: use mode = "tunnel", or an address within a connected prefix"#,
            ),
        ),
        (
            with(
                "[[route]]\nto = \"0.0.0.0/0\"\nvia = \"192.0.2.1\"\n[[service]]\nvip = \"192.0.2.100:80\"\nprotocol = \"tcp\"\nmode = \"dr\"\nbackend = [{ address = \"192.0.2.11:80\" }, { address = \"198.51.100.1:80\" }]",
            ),
            r#"t:15:55: service[0].backend[1].address: backend 198.51.100.1:80 is not on the link of any interface, and mode dr reaches no further; help: use mode = "tunnel", or an address within a connected prefix"#,
        ),
        (
            backend("address = \"192.0.2.11:80\"\nmode = \"tunel\""),
            "t:13:8: service[0].backend[0].mode: unknown mode `tunel`; help: did you mean `tunnel`?",
        ),
    ]);
}

#[test]
fn checks() {
    refuse(&[
        (
            check("kind = \"htp\""),
            "t:11:18: service[0].check.kind: unknown kind of check `htp`; help: did you mean `http`?",
        ),
        (
            check("kind = \"icmp\""),
            "t:11:18: service[0].check.kind: unknown kind of check `icmp`; help: use one of `tcp`, `http`",
        ),
        (
            check("kind = \"tcp\", path = \"/\", host = \"h\", status = 200"),
            concat!(
                r#"t:11:32: service[0].check.path: a tcp check only opens a connection and asks for nothing; help: remove this key, or set kind = "http""#,
                "\n",
                r#"t:11:44: service[0].check.host: a tcp check only opens a connection and asks for nothing; help: remove this key, or set kind = "http""#,
                "\n",
                r#"t:11:58: service[0].check.status: a tcp check only opens a connection and asks for nothing; help: remove this key, or set kind = "http""#,
            ),
        ),
        (
            check("kind = \"tcp\", proxy = \"v2\""),
            r#"t:11:33: service[0].check.proxy: a tcp check only opens a connection and asks for nothing; help: remove this key, or set kind = "http""#,
        ),
        (
            check("kind = \"http\", proxy = \"proxy-v2\""),
            "t:11:34: service[0].check.proxy: unknown PROXY header `proxy-v2`; help: use one of `none`, `v1`, `v2`",
        ),
        (
            check("kind = \"http\", path = \"health\""),
            r#"t:11:33: service[0].check.path: the path of a check must begin with a slash and be ASCII without spaces or control characters; help: write it as path = "/health""#,
        ),
        (
            check("kind = \"http\", path = \"/a b\""),
            r#"t:11:33: service[0].check.path: the path of a check must begin with a slash and be ASCII without spaces or control characters; help: write it as path = "/health""#,
        ),
        (
            check("kind = \"http\", path = \"/\\r\\n\""),
            r#"t:11:33: service[0].check.path: the path of a check must begin with a slash and be ASCII without spaces or control characters; help: write it as path = "/health""#,
        ),
        (
            check("kind = \"http\", host = \"a\\r\\nb\""),
            r#"t:11:33: service[0].check.host: the host of a check must be ASCII without spaces or control characters, and not empty; help: write it as host = "www.example.org""#,
        ),
        (
            check("kind = \"http\", host = \"\""),
            r#"t:11:33: service[0].check.host: the host of a check must be ASCII without spaces or control characters, and not empty; help: write it as host = "www.example.org""#,
        ),
        (
            check("kind = \"http\", interval_ms = 100, timeout_ms = 200"),
            "t:11:58: service[0].check.timeout_ms: timeout_ms is 200, longer than interval_ms, 100; help: set timeout_ms to at most 100, or interval_ms to more",
        ),
        (
            check("kind = \"tcp\", interval_ms = 500"),
            "t:11:9: service[0].check.timeout_ms: timeout_ms is 1000, longer than interval_ms, 500; help: set timeout_ms to at most 500, or interval_ms to more",
        ),
        (
            check("kind = \"http\", path = \"x\", interval_ms = \"9\", timeout_ms = 3000"),
            concat!(
                r#"t:11:33: service[0].check.path: the path of a check must begin with a slash and be ASCII without spaces or control characters; help: write it as path = "/health""#,
                "\n",
                "t:11:52: service[0].check.interval_ms: expected an integer, found a string",
            ),
        ),
        (
            service("vip = \"192.0.2.100:53\"\nprotocol = \"udp\"\ncheck = { kind = \"tcp\" }"),
            "t:11:9: service[0].check.port: the check of a udp service has no port to ask by TCP; help: add port = N, a port on which the backend answers TCP",
        ),
    ]);
}
