"""Full NAT that tells servers who their clients are.

What has to be sent is built by scapy from the first byte to the last: a segment with the payload, the numbers and
the options that it must have, and every checksum computed anew.
"""

import ipaddress
import struct

import pytest
from scapy.layers.inet import TCP, UDP

import drops
from appliance import BOTH_FAMILIES, NEIGHBOURS, PORT_MAC, Appliance, Backend, Service, join, split, version
from frames import ICMP, IP, Ether, IPv6, Raw, framed, ip_packet, pattern, pieces, tcp, udp
from session import Session

CLIENTS = {4: "198.51.100.7:31337", 6: "[2001:db8:51::7]:31337"}
VIPS = {4: "192.0.2.100", 6: "2001:db8:2::100"}
SERVERS = {4: "192.0.2.11", 6: "2001:db8:2::11"}
POOL = ("192.0.2.230", "2001:db8:2::230")
PAIRS = [(4, 4), (6, 6), (4, 6), (6, 4)]
EACH_PAIR = pytest.mark.parametrize("here, there", PAIRS, ids=[f"{a}to{b}" for a, b in PAIRS])
PROXIES = ("proxy-v1", "proxy-v2")
EACH_PROXY = pytest.mark.parametrize("way", PROXIES)
ISN, SERVER_ISN = 0xFFFFFFF0, 5000
FIRST = ISN + 1
TIMES = ("Timestamp", (77, 88))


def header(way: str, client: str, vip: str, kind: int = 1) -> bytes:
    """The PROXY header by its specification; `kind` is 1 for a stream and 2 for datagrams."""
    (src, sport), (dst, dport) = split(client), split(vip)
    if way == "proxy-v1":
        return f"PROXY TCP{version(src)} {src} {dst} {sport} {dport}\r\n".encode()
    addresses = ipaddress.ip_address(src).packed + ipaddress.ip_address(dst).packed + struct.pack("!HH", sport, dport)
    family = 0x10 if version(src) == 4 else 0x20
    return b"\x0d\x0a\x0d\x0a\x00\x0d\x0aQUIT\x0a" + struct.pack("!BBH", 0x21, family | kind, len(addresses)) + addresses


def option(client: str) -> tuple[int, bytes]:
    """The TCP option as scapy has unknown ones."""
    src, sport = split(client)
    return 254, struct.pack("!H", sport) + ipaddress.ip_address(src).packed


class Conversation:
    """A client and a server of one IP version each, with the appliance between them."""

    def __init__(self, session: Session, here: int, there: int, way: str, udp_: bool = False):
        self.session, self.here, self.there, self.way = session, here, there, way
        self.client = CLIENTS[here]
        self.vip = join(VIPS[here], 53 if udp_ else 80)
        self.server = join(SERVERS[there], 8000)
        self.local = ""

    def play(self, frame: bytes) -> bytes:
        """The one frame that is sent for another."""
        sent = [frame for _, frame in self.session.play([(0, frame)])]
        assert len(sent) == 1, sent
        return sent[0]

    def ask(self, flags: str, seq: int, payload: bytes = b"", wanted: bytes | None = None, moved: int = 0, **fields):
        """Sends a client's segment; asserts that the server gets it as `wanted`, with its number `moved` on.

        `added` are options that the server gets before the others.
        """
        added, ip = fields.pop("added", []), fields.pop("ip", None)
        numbers = {"seq": seq & 0xFFFFFFFF, "ack": 0 if flags == "S" else SERVER_ISN + 1, **fields}
        sent = self.play(tcp(self.client, self.vip, flags, payload, ip=ip, **numbers))
        if not self.local:
            l4 = Ether(sent)[TCP]
            self.local = join(Ether(sent)[IP if self.there == 4 else IPv6].src, l4.sport)
            assert split(self.local)[0] in POOL
        numbers["seq"] = (seq + moved) & 0xFFFFFFFF
        numbers["options"] = added + numbers.get("options", [])
        wanted = payload if wanted is None else wanted
        self.compare(sent, tcp(self.local, self.server, flags, wanted, **numbers), self.server)

    def answer(self, flags: str, ack: int, told: int, payload: bytes = b"", options=(), told_options=None):
        """Sends a server's segment; asserts that the client gets `told` and `told_options` for what is in it."""
        seq = SERVER_ISN + (flags != "SA")
        segment = {"seq": seq, "ack": ack & 0xFFFFFFFF, "options": list(options)}
        sent = self.play(tcp(self.server, self.local, flags, payload, **segment))
        told_options = list(options) if told_options is None else told_options
        segment |= {"ack": told & 0xFFFFFFFF, "options": told_options}
        self.compare(sent, tcp(self.vip, self.client, flags, payload, **segment), self.client)

    def compare(self, sent: bytes, wanted: bytes, to: str):
        """Asserts that a frame has the wanted TCP or UDP, with right checksums, and right lengths and ends of IP."""
        got, want = Ether(sent), Ether(wanted)
        layer = IP if version(split(to)[0]) == 4 else IPv6
        mac = NEIGHBOURS.get(split(to)[0], NEIGHBOURS[("192.0.2.1", "2001:db8:2::1")[layer is IPv6]])
        assert (got.src, got.dst) == (PORT_MAC, mac)
        assert (got[layer].src, got[layer].dst) == (want[layer].src, want[layer].dst)
        # Checksums and lengths computed anew.
        again = got[layer].copy()
        for header_, names in ((layer, ("len", "chksum", "plen")), (TCP, ("chksum",)), (UDP, ("len", "chksum"))):
            for name in names:
                if header_ in again and name in again[header_].fields:
                    delattr(again[header_], name)
        assert bytes(again) == sent[14:]
        assert bytes(got[layer].payload) == bytes(want[layer].payload)

    def open(self, long: int):
        """The handshake as far as the server's answer; `long` is how much longer segments may become."""
        self.ask("S", ISN, options=[("MSS", 1460), ("SAckOK", b""), TIMES])
        # What the client sends has to have room for what is put into it.
        offer, told = ([("MSS", mss), ("SAckOK", b""), TIMES] for mss in (1460, 1460 - long))
        self.answer("SA", FIRST, FIRST, options=offer, told_options=told)


def appliance(here: int, there: int, way: str, **other) -> Appliance:
    """A service of TCP and one of UDP, but for ways that are none for it."""
    backends = (Backend(join(SERVERS[there], 8000), "full-nat"),)
    services = []
    if way != "proxy-v2-each":
        services += [Service(join(VIPS[here], 80), backends, snat_pool="out", client_address=way)]
    if way.startswith("proxy-v2"):
        services += [Service(join(VIPS[here], 53), backends, "udp", snat_pool="out", client_address=way)]
    return Appliance(tuple(services), interfaces=BOTH_FAMILIES, pools={"out": POOL}, **other)


@pytest.fixture
def session(tmp_path_factory, here, there, way):
    """The appliance at work; every frame must be accounted for when it ends."""
    with Session(appliance(here, there, way), tmp_path_factory.mktemp("run")) as session:
        yield session


@EACH_PAIR
@EACH_PROXY
def test_a_client_that_speaks_first(session, here, there, way):
    talk = Conversation(session, here, there, way)
    known = header(way, talk.client, talk.vip)
    talk.open(len(known))
    # The handshake's end has it, and so has all that begins where the client's bytes do.
    for payload in (b"", b"GET / HTTP/1.1\r\n\r\n", b"odd", pattern(1300)):
        for flags in ("A", "PA", "FA"):
            talk.ask(flags, FIRST, payload, known + payload, options=[TIMES])
    # What comes behind that has other numbers, also when it comes before.
    talk.ask("PA", FIRST + 1300, pattern(1301), moved=len(known), options=[TIMES])
    talk.ask("A", FIRST - 1, moved=len(known))
    # The server has none of it, then a part of the header, then the header and three bytes.
    for has, told in ((0, 0), (len(known) - 1, 0), (len(known), 0), (len(known) + 3, 3)):
        talk.answer("A", FIRST + has, FIRST + told, options=[TIMES])
    # From now on nothing has it any more.
    talk.ask("PA", FIRST, b"GET / HTTP/1.1\r\n\r\n", moved=len(known))
    talk.ask("FA", FIRST + 18, moved=len(known))
    talk.ask("R", FIRST + 19, moved=len(known))
    assert not session.stop().drops


@EACH_PAIR
@EACH_PROXY
def test_a_server_that_speaks_first(session, here, there, way):
    talk = Conversation(session, here, there, way)
    known = header(way, talk.client, talk.vip)
    talk.open(len(known))
    talk.ask("A", FIRST, b"", known)
    talk.answer("PA", FIRST + len(known), FIRST, b"220 ready\r\n")
    talk.ask("A", FIRST, moved=len(known))
    talk.ask("PA", FIRST, b"EHLO\r\n", moved=len(known))
    talk.answer("A", FIRST + len(known) + 6, FIRST + 6)


@EACH_PAIR
@EACH_PROXY
def test_selective_acknowledgments(session, here, there, way):
    talk = Conversation(session, here, there, way)
    known = header(way, talk.client, talk.vip)
    more = len(known)
    talk.open(more)

    def blocks(*edges: int):
        return [("NOP", None), ("NOP", None), ("SAck", tuple(FIRST + edge & 0xFFFFFFFF for edge in edges))]

    talk.answer("A", FIRST, FIRST, options=blocks(more + 9, more + 20), told_options=blocks(9, 20))
    # The header came twice, and more than it: nothing that the client sent, and what it did.
    said = blocks(0, more, more + 9, more + 20)
    left = [*blocks(9, 20), *[("NOP", None)] * 8]
    talk.answer("A", FIRST + more, FIRST, options=said, told_options=left)
    talk.answer("A", FIRST + more, FIRST, options=blocks(0, more), told_options=[("NOP", None)] * 12)
    talk.answer("A", FIRST + more, FIRST, options=blocks(0, more + 9), told_options=blocks(0, 9))


@pytest.mark.parametrize("here, there, way, longest", [(4, 4, way, 1500) for way in PROXIES] + [(4, 6, "proxy-v2", 1480)])
def test_no_room_for_the_header(session, here, there, way, longest):
    """The client is told how long its packets may be."""
    talk = Conversation(session, here, there, way)
    known = header(way, talk.client, talk.vip)
    talk.open(len(known))
    room = longest - 40 - len(known)
    talk.ask("A", FIRST, pattern(room), known + pattern(room), ip={"flags": "DF"})
    error = Ether(talk.play(tcp(talk.client, talk.vip, "A", pattern(room + 1), seq=FIRST, ip={"flags": "DF"})))
    assert (error[ICMP].type, error[ICMP].code, error[ICMP].nexthopmtu) == (3, 4, longest - len(known))
    whole = tcp(talk.client, talk.vip, "A", pattern(room + 1), seq=FIRST)
    for piece in pieces(ip_packet(whole), (800,)):
        # A packet in pieces can not become longer in front: its first piece is dropped.
        sent = session.play([(0, framed(piece, split(talk.client)[0]))])
        assert len(sent) == (IP(piece).frag > 0)
    assert session.stop().drops == {drops.ADDRESS_IN_PIECES: 1}


@EACH_PAIR
@pytest.mark.parametrize("way", ["proxy-v2", "proxy-v2-each"])
def test_datagrams(session, here, there, way):
    talk = Conversation(session, here, there, way, udp_=True)
    known = header(way, talk.client, talk.vip, 2)
    assert len(known) == (28 if here == 4 else 52)
    checksums = [{}, {"chksum": 0}] if (here, there) == (4, 4) else [{}]
    for number, fields in enumerate(checksums):
        talk.client = join(split(talk.client)[0], 31337 + number)
        known = header(way, talk.client, talk.vip, 2)
        # Until the server answers, which may not have got the first one.
        for asked, is_first in ((b"one", True), (b"", True), (b"two", False), (b"", False)):
            if asked == b"two":
                answer = talk.play(udp(talk.server, local, b"answer"))
                talk.compare(answer, udp(talk.vip, talk.client, b"answer"), talk.client)
            payload = known + asked if is_first or way == "proxy-v2-each" else asked
            sent = talk.play(udp(talk.client, talk.vip, asked, **fields))
            local = join(Ether(sent)[IP if there == 4 else IPv6].src, Ether(sent)[UDP].sport)
            wanted = udp(local, talk.server, payload, **fields)
            if fields:
                assert Ether(sent)[UDP].chksum == 0
                assert bytes(Ether(sent)[UDP].payload) == payload and Ether(sent)[UDP].len == 8 + len(payload)
            else:
                talk.compare(sent, wanted, talk.server)


@EACH_PAIR
@pytest.mark.parametrize("way", ["toa"])
def test_the_option(session, here, there, way):
    talk = Conversation(session, here, there, way)
    mark = option(talk.client)
    size = 2 + len(mark[1])
    assert size == (8 if here == 4 else 20)
    talk.open(size)
    for payload in (b"", b"GET /", pattern(1300)):
        talk.ask("PA", FIRST, payload, options=[TIMES], added=[mark])
    talk.ask("PA", FIRST + 1300, b"more", options=[TIMES])
    # As long as the header may be, so the option has no place.
    full = [("SAck", tuple(range(8))), ("NOP", None), ("NOP", None), ("NOP", None), ("NOP", None), ("NOP", None)]
    talk.ask("A", FIRST, options=full[:1] + full[1:5])
    # As long as the packet may be, so the option has no place.
    most = 1500 - (60 if 6 in (here, there) else 40)
    if (here, there) != (6, 4):
        talk.ask("A", FIRST, pattern(most), ip={"flags": "DF"} if here == 4 else {})
    talk.ask("A", FIRST, pattern(most - size), ip={"flags": "DF"} if here == 4 else {}, added=[mark])
    talk.answer("A", FIRST + 5, FIRST + 5)
    talk.ask("PA", FIRST, b"GET /")
    assert not session.stop().drops


def test_what_can_not_be_told_is_refused(tmp_path):
    """By trutinad itself, before it begins."""
    backends = (Backend(join(SERVERS[4], 8000)),)
    services = (Service(join(VIPS[4], 80), backends, client_address="proxy-v2"),)
    with pytest.raises(AssertionError, match="client_address is only for mode full-nat"):
        Session(Appliance(services), tmp_path).__enter__()
