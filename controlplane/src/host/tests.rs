//! Frames through a tap played by a socket, and a real tap in a network namespace of its own.

use std::net::UdpSocket;
use std::process::Command;

use dataplane::wire::arp::{Arp, Operation};

use super::*;

impl Host {
    /// No tap at all.
    pub(crate) fn none() -> Self {
        let (routes, _) = watch::channel(Vec::new());
        let frames = mpsc::channel(1).1;
        Self { taps: HashMap::new(), frames, routes, names: HashMap::new(), _tasks: JoinSet::new() }
    }

    /// One tap, of an interface, and its kernel's end.
    pub(crate) fn with_one(interface: usize) -> (Self, UnixDatagram) {
        let (ours, theirs) = UnixDatagram::pair().unwrap();
        let tap = Arc::new(Tap::Socket(ours));
        let (sender, frames) = mpsc::channel(WAITING);
        let mut host = Self { frames, ..Self::none() };
        host._tasks.spawn(read(Arc::clone(&tap), interface, sender));
        host.taps.insert(interface, tap);
        (host, theirs)
    }
}

#[tokio::test]
async fn frames_go_to_the_kernel_and_come_from_it() {
    let (mut host, kernel) = Host::with_one(3);
    assert!(host.has(3) && !host.has(0));
    while !host.give(3, b"to the kernel") {
        tokio::task::yield_now().await;
    }
    let mut bytes = [0; 64];
    let len = kernel.recv(&mut bytes).await.unwrap();
    assert_eq!(&bytes[..len], b"to the kernel");
    kernel.send(b"from the kernel").await.unwrap();
    let sent = Sent { interface: 3, bytes: b"from the kernel".to_vec() };
    assert_eq!(host.next().await, Some(sent));
    assert_eq!(host.try_next(), None);
    assert!(!host.give(0, b"nobody"));
}

#[tokio::test]
async fn a_kernel_that_takes_nothing_holds_nobody_up_and_one_that_floods_waits() {
    let (mut host, kernel) = Host::with_one(0);
    let Tap::Socket(ours) = &*host.taps[&0] else { unreachable!() };
    ours.writable().await.unwrap();
    let given = (0..100_000).take_while(|_| host.give(0, &[0; 1000])).count();
    assert!((1..100_000).contains(&given));
    let mut sent = 0;
    while time::timeout(Duration::from_millis(100), kernel.send(&[0; 60])).await.is_ok() {
        sent += 1;
    }
    assert!(sent > WAITING, "the channel and the socket's own queue are full");
    for _ in 0..sent {
        assert!(host.next().await.is_some(), "none was lost");
    }
}

const CONFIG: &str = r#"
[cores]
workers = [1]
[[port]]
name = "lan"
device = "net_null0"
addresses = ["192.0.2.254/24", "2001:db8:1::fe/64"]
host = "tap-lan"
[[route]]
to = "198.51.100.0/24"
via = "192.0.2.1"
[[route]]
to = "::/0"
via = "2001:db8:1::1"
"#;

/// Runs a command of the namespace; answers what it prints.
fn ip(arguments: &str) -> String {
    let output = Command::new("ip").args(arguments.split(' ')).output().unwrap();
    assert!(output.status.success(), "ip {arguments}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Waits until a command of the namespace prints what is wanted.
async fn settles(arguments: &str, wanted: impl Fn(&str) -> bool) {
    for _ in 0..100 {
        if wanted(&ip(arguments)) {
            return;
        }
        time::sleep(Duration::from_millis(20)).await;
    }
    panic!("ip {arguments}: it stays\n{}", ip(arguments));
}

/// What the kernel sends until `wanted` says that it is enough.
async fn until(host: &mut Host, wanted: impl Fn(&[u8]) -> bool) -> Sent {
    loop {
        let sent = time::timeout(Duration::from_secs(5), host.next()).await.expect("no such frame").unwrap();
        if wanted(&sent.bytes) {
            return sent;
        }
    }
}

/// Run by the next test, in a network namespace.
#[tokio::test]
#[ignore = "changes the network of the namespace it runs in"]
async fn in_a_namespace_of_its_own_the_kernel_uses_the_tap() {
    let config = config::parse("test.toml", CONFIG).unwrap();
    let mac: MacAddr = "02:00:5e:00:53:fe".parse().unwrap();
    let mut host = Host::open(&config, &[mac]).await.unwrap();
    let link = ip("-d link show dev tap-lan");
    assert!(link.contains("link/ether 02:00:5e:00:53:fe") && link.contains("mtu 1500"), "{link}");
    assert!(link.contains("UP") && link.contains("addrgenmode none"), "{link}");
    let addresses = ip("address show dev tap-lan");
    for address in ["192.0.2.254/24 brd 192.0.2.255", "2001:db8:1::fe/64", "fe80::5eff:fe00:53fe/64"] {
        assert!(addresses.contains(address), "{addresses}");
    }
    assert!(!addresses.contains("tentative"), "{addresses}");
    let route = "198.51.100.0/24 via 192.0.2.1 dev tap-lan proto static metric 4096";
    settles("route show", |routes| routes.contains(route)).await;
    let route = "default via 2001:db8:1::1 dev tap-lan proto static metric 4096";
    settles("-6 route show", |routes| routes.contains(route)).await;

    UdpSocket::bind("192.0.2.254:0").unwrap().send_to(b"hello", "192.0.2.7:7").unwrap();
    let asks = |bytes: &[u8]| bytes[12..14] == [8, 6] && bytes[38..42] == [192, 0, 2, 7];
    let question = until(&mut host, asks).await;
    let question = Arp::parse(&question.bytes).unwrap();
    let station = MacAddr([2, 0, 0x5e, 0, 0x53, 7]);
    let answer = Arp {
        operation: Operation::Reply,
        sender_mac: station,
        sender: question.target,
        target_mac: mac,
        target: question.sender,
    };
    assert!(host.give(0, &answer.frame(mac)));
    let hello = until(&mut host, |bytes| bytes[12..14] == [8, 0] && bytes[23] == 17).await;
    assert_eq!((&hello.bytes[..6], &hello.bytes[6..12]), (&station.0[..], &mac.0[..]));
    assert!(hello.bytes.ends_with(b"hello"));

    let fewer = config::model::Config { routes: config.routes[1..].to_vec(), ..config.clone() };
    host.set_routes(&fewer);
    settles("route show", |routes| !routes.contains("198.51.100.0/24")).await;
    drop(host);
    settles("link show", |links| !links.contains("tap-lan")).await;
}

#[test]
fn a_tap_gives_an_interface_to_the_kernel() {
    let program = std::env::current_exe().unwrap();
    let test = "host::tests::in_a_namespace_of_its_own_the_kernel_uses_the_tap";
    let mut command = Command::new("unshare");
    command.args(["--user", "--map-root-user", "--net"]).arg(program);
    let output = command.args(["--exact", test, "--ignored", "--nocapture"]).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
}
