"""The hash by which flows find their slots, worked out from its description: writes keyed_hash.tsv.

All balancers of a cluster must agree on it, whatever they run on. Nothing here is shared with the program but SipHash.
"""

import ipaddress
import random
from pathlib import Path

from generate import WORD, siphash_1_3

SECRET = b"secret"


def keys(secret):
    """Ten words: SipHash-1-3 of one byte, their number, under the secret; which is that of its text under two keys."""
    key = [siphash_1_3(pair, secret) for pair in ([0, 1], [2, 3])]
    return [siphash_1_3(key, bytes([number])) for number in range(10)]


def folded(one, other):
    product = one * other
    return product & WORD ^ product >> 64


def mapped(address):
    return int(address) if address.version == 6 else 0xFFFF << 32 | int(address)


def products(address, four):
    low, high = address & WORD, address >> 64
    return [folded(low ^ four[at], high ^ four[at + 1]) for at in (0, 2)]


def keyed_hash(on, source, source_port, destination, destination_port, protocol):
    key = keys(SECRET)
    rest = 0
    sums = products(mapped(destination if on == "destination" else source), key)
    if on == "source-prefix":
        network = ipaddress.ip_network(source).supernet(new_prefix=24 if source.version == 4 else 56)
        sums = products(mapped(network.network_address), key)
    if on == "source-port":
        rest = source_port
    if on == "five-tuple":
        sums = [one + other for one, other in zip(sums, products(mapped(destination), key[6:]))]
        rest = (protocol == "udp") << 32 | destination_port << 16 | source_port
    return folded(*((total + rest * factor) & WORD for total, factor in zip(sums, key[4:])))


def lines():
    draw = random.Random(7)
    v4, v6 = int(ipaddress.ip_address("198.18.0.0")), int(ipaddress.ip_address("2001:db8::"))
    for on in "source", "source-port", "destination", "five-tuple", "source-prefix":
        for number in range(8):
            first, bits = (v4, 17) if number < 4 else (v6, 96)
            source, destination = (ipaddress.ip_address(first + draw.getrandbits(bits)) for _ in "sd")
            opening = source, draw.getrandbits(16), destination, draw.getrandbits(16), ("tcp", "udp")[number % 2]
            yield on, *opening, f"{keyed_hash(on, *opening):016x}"


if __name__ == "__main__":
    text = "".join("\t".join(map(str, line)) + "\n" for line in lines())
    Path(__file__).with_name("keyed_hash.tsv").write_text(text)
