"""Outer headers of tunnels: IP in IP (RFC 2003, 2473, 4213), GUE (draft-ietf-intarea-gue) and GRE (RFC 2784)."""

from appliance import Tunnel, version
from frames import ETHERTYPE_IPV4, ETHERTYPE_IPV6, IP, UDP, IPv6, Packet, Raw

from scapy.layers.l2 import GRE

IP_IN = {4: 4, 6: 41}
GRE_PROTO, UDP_PROTO = 47, 17
# What an error about an outer packet means, and how it is told to the sender of the inner one: type and code.
TELLS = {
    (4, "too big"): (3, 4),
    (4, "too old"): (11, 0),
    (4, "not reached"): (3, 1),
    (6, "too big"): (2, 0),
    (6, "too old"): (3, 0),
    (6, "not reached"): (1, 3),
}
GUE_PORTS = range(49152, 65536)


def wrapped(tunnel: Tunnel, src: str, dst: str, inner: bytes, ident: int, label: int, df: bool, sport: int) -> bytes:
    """The packet `inner` on its way from `src` to `dst` in a tunnel.

    ToS and TTL are those of the inner packet, ECN included (RFC 6040, 4.1: normal mode copies it).
    """
    carried = inner[0] >> 4
    if carried == 4:
        tos, ttl = inner[1], inner[8]
    else:
        tos, ttl = int.from_bytes(inner[:2], "big") >> 4 & 0xFF, inner[7]
    proto, shim = _shim(tunnel, carried, sport)
    if version(src) == 4:
        outer = IP(src=src, dst=dst, proto=proto, tos=tos, ttl=ttl, flags="DF" if df else 0, id=ident)
    else:
        outer = IPv6(src=src, dst=dst, nh=proto, tc=tos, hlim=ttl, fl=label)
    return bytes(outer / shim / Raw(inner) if shim else outer / Raw(inner))


def _shim(tunnel: Tunnel, carried: int, sport: int) -> tuple[int, Packet | None]:
    """What stands between the outer IP header and the inner packet, and its protocol."""
    if tunnel.type == "gue":
        # Version 0, no control, no optional fields: the inner protocol alone.
        udp = UDP(sport=sport, dport=tunnel.port, **({} if tunnel.checksum else {"chksum": 0}))
        return UDP_PROTO, udp / Raw(bytes([0, IP_IN[carried], 0, 0]))
    if tunnel.type == "gre":
        ethertype = ETHERTYPE_IPV4 if carried == 4 else ETHERTYPE_IPV6
        return GRE_PROTO, GRE(proto=ethertype, chksum_present=int(tunnel.checksum))
    return IP_IN[carried], None


def overhead(tunnel: Tunnel, outer_version: int) -> int:
    """Bytes that a tunnel adds."""
    shim = {"ipip": 0, "gue": 12, "gre": 8 if tunnel.checksum else 4}[tunnel.type]
    return shim + (20 if outer_version == 4 else 40)


def unwrapped(tunnel: Tunnel, proto: int, behind: bytes) -> bytes:
    """What is in a tunnel's packet, as far as it is quoted; raises `ValueError` if it is none of this tunnel."""
    expected = {"gue": {UDP_PROTO}, "gre": {GRE_PROTO}, "ipip": set(IP_IN.values())}[tunnel.type]
    length = {"ipip": 0, "gue": 12, "gre": 8 if tunnel.checksum else 4}[tunnel.type]
    if proto not in expected or len(behind) <= length:
        raise ValueError("another protocol")
    if tunnel.type == "gue" and int.from_bytes(behind[2:4], "big") != tunnel.port:
        raise ValueError("another port")
    return behind[length:]


def told(ip_version: int, kind: int, code: int) -> str:
    """What an ICMP error about an outer packet means."""
    if (kind, code) == (3, 4) if ip_version == 4 else kind == 2:
        return "too big"
    return "too old" if (kind, code) == ((11, 0) if ip_version == 4 else (3, 0)) else "not reached"
