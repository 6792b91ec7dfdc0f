"""What IPVS's hash schedulers choose, worked out from the description of its tables: writes ipvs_hash.tsv.

Source: Linux 6.1, net/netfilter/ipvs/ip_vs_dh.c, ip_vs_sh.c, ip_vs_mh.c, lib/siphash.c. Nothing here is shared
with the program: `make test-oracle` compares both with a real IPVS.
"""

import ipaddress
import math
import random
from pathlib import Path

PRIMES = [251, 509, 1021, 2039, 4093, 8191, 16381, 32749, 65521, 131071]
KEY_1, KEY_2 = 2654435761, 2654446892
WORD = (1 << 64) - 1


def rotated(value, bits):
    return (value << bits | value >> (64 - bits)) & WORD


def siphash_1_3(key, data):
    """SipHash-1-3 of bytes, 64 bits."""
    v = [key[0] ^ 0x736F6D6570736575, key[1] ^ 0x646F72616E646F6D]
    v += [key[0] ^ 0x6C7967656E657261, key[1] ^ 0x7465646279746573]

    def mix():
        v[0] = (v[0] + v[1]) & WORD
        v[1] = rotated(v[1], 13) ^ v[0]
        v[0] = rotated(v[0], 32)
        v[2] = (v[2] + v[3]) & WORD
        v[3] = rotated(v[3], 16) ^ v[2]
        v[0] = (v[0] + v[3]) & WORD
        v[3] = rotated(v[3], 21) ^ v[0]
        v[2] = (v[2] + v[1]) & WORD
        v[1] = rotated(v[1], 17) ^ v[2]
        v[2] = rotated(v[2], 32)

    whole = len(data) // 8 * 8
    words = [int.from_bytes(data[at : at + 8], "little") for at in range(0, whole, 8)]
    words.append(int.from_bytes(data[whole:], "little") | (len(data) & 0xFF) << 56)
    for word in words:
        v[3] ^= word
        mix()
        v[0] ^= word
    v[2] ^= 0xFF
    for _ in range(3):
        mix()
    return v[0] ^ v[1] ^ v[2] ^ v[3]


def hsiphash(key, value):
    return siphash_1_3([key, key], value.to_bytes(4, "little")) & 0xFFFFFFFF


def folded(address):
    number, result = int(address), 0
    while number:
        result ^= number & 0xFFFFFFFF
        number >>= 32
    return result


def hash_32(value):
    return value * 0x61C88647 % 2**32 >> 24


class Server:
    """A server; its weight now, and the last one that was not 0."""

    def __init__(self, address, port, weight, last_weight=None):
        self.address, self.port, self.weight = ipaddress.ip_address(address), port, weight
        self.last_weight = weight if last_weight is None else last_weight

    def __str__(self):
        host = f"[{self.address}]" if self.address.version == 6 else self.address
        return f"{host}:{self.port}={self.weight}/{self.last_weight}"


def bucket_table(servers, weighted):
    """dh and sh: a walk around the list, that stays at each server for its weight."""
    table, at, taken = [], 0, 0
    while servers and len(table) < 256:
        table.append(at)
        taken += 1
        if not weighted or taken >= servers[at].weight:
            at, taken = (at + 1) % len(servers), 0
    return table


def maglev_table(servers, size):
    gcd = math.gcd(*(server.last_weight for server in servers))
    if gcd == 0:
        return []
    top = max(server.last_weight for server in servers) // gcd
    shift = max(0, top.bit_length() - (8 + PRIMES.index(size)) // 2)
    turns, order = [], []
    for server in servers:
        seed = (folded(server.address) + server.port) % 2**32
        turns.append(((server.last_weight // gcd) >> shift) or int(server.last_weight != 0))
        order.append([hsiphash(KEY_1, seed) % size, hsiphash(KEY_2, seed) % (size - 1) + 1])
    table = [None] * size
    left = size
    while True:
        for index in range(len(servers)):
            for _ in range(turns[index]):
                while table[order[index][0]] is not None:
                    order[index][0] = (order[index][0] + order[index][1]) % size
                table[order[index][0]] = index
                left -= 1
                if not left:
                    return table


class Scheduler:
    def __init__(self, kind, flags, size, servers):
        self.kind, self.flags, self.size, self.servers = kind, flags, size, servers
        self.table = maglev_table(servers, size) if kind == "mh" else bucket_table(servers, kind == "sh")

    def slot(self, opening, offset):
        source, port, destination = opening
        if self.kind == "dh":
            return hash_32(folded(destination))
        value = (folded(source) + (port if "port" in self.flags else 0)) % 2**32
        if self.kind == "sh":
            return (offset + hash_32(value)) % 256
        return hsiphash(KEY_1, (value + offset) % 2**32) % self.size

    def choose(self, opening):
        if not self.table:
            return "-"
        first = self.slot(opening, 0)
        slots = [first]
        if "fallback" in self.flags:
            slots += (self.slot(opening, (offset + first) % len(self.table)) for offset in range(len(self.table)))
        return next((self.table[slot] for slot in slots if self.servers[self.table[slot]].weight), "-")


def openings():
    """A client, its port and the address it wants: of IPv4, then of IPv6."""
    draw = random.Random(5)
    v4, v6 = int(ipaddress.ip_address("198.18.0.0")), int(ipaddress.ip_address("2001:db8::"))
    for _ in range(48):
        yield tuple(ipaddress.ip_address(v4 + draw.randrange(1 << 17)) for _ in "sd")
    for _ in range(48):
        yield tuple(ipaddress.ip_address(v6 + draw.randrange(1 << 80)) for _ in "sd")


def cases():
    farm = [Server(f"10.0.0.{host}", 80, 1) for host in range(1, 6)]
    uneven = [Server(f"10.0.0.{host}", 8000 + host, weight) for host, weight in ((1, 4), (2, 3), (3, 2))]
    quiesced = [*farm[:2], Server("10.0.0.3", 80, 0, 7), Server("10.0.0.4", 80, 3)]
    huge = [Server("10.0.0.1", 80, 1000), Server("10.0.0.2", 80, 1), Server("10.0.0.3", 80, 1)]
    wide = [Server(f"2001:db8:5::{host:x}", 443, host) for host in range(1, 7)]
    many = [Server(f"10.7.{host // 250}.{host % 250 + 1}", 80, host % 3 + 1) for host in range(240)]
    gone = [Server("10.0.0.1", 80, 0, 5), Server("10.0.0.2", 80, 0, 5)]
    never = [Server("10.0.0.1", 80, 0, 0), Server("10.0.0.2", 80, 2)]
    heavy = [Server("10.0.0.1", 80, 65535 * 256), Server("10.0.0.2", 80, 65535), Server("10.0.0.3", 0, 77)]
    hundreds = [Server(f"10.0.0.{host}", 80, 100) for host in range(1, 4)]
    farms = [[], farm, uneven, quiesced, huge, wide, many, gone, never, heavy, hundreds]
    for servers in farms:
        yield "dh", [], 256, servers
        for flags in [], ["port"], ["fallback"], ["port", "fallback"]:
            yield "sh", flags, 256, servers
            if servers:
                yield "mh", flags, 4093, servers
    for size in PRIMES[:4] + PRIMES[5:]:
        yield "mh", ["fallback"], size, uneven
        yield "mh", [], size, heavy


def lines():
    clients = [(source, 1024 + 600 * number, destination) for number, (source, destination) in enumerate(openings())]
    for source, port, destination in clients:
        yield "opening", source, port, destination
    for kind, flags, size, servers in cases():
        scheduler = Scheduler(kind, flags, size, servers)
        shares = (scheduler.table.count(index) for index in range(len(servers)))
        yield "case", kind, ",".join(flags), size, *servers
        yield "shares", *shares
        yield "picks", *(scheduler.choose(client) for client in clients)


if __name__ == "__main__":
    text = "".join("\t".join(map(str, line)) + "\n" for line in lines())
    Path(__file__).with_name("ipvs_hash.tsv").write_text(text)
