"""The lab's addresses: one plan for both IP versions, with the same last numbers in each."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Family:
    """Addresses of one IP version; documentation's own for IPv6, private ones for IPv4."""

    version: int
    clients: str
    servers: str
    prefix_len: int
    address_len: int
    everywhere: str

    @property
    def client(self):
        return f"{self.clients}2"

    @property
    def clients_router(self):
        return f"{self.clients}1"

    @property
    def router(self):
        return f"{self.servers}1"

    @property
    def own(self):
        """The appliance's own address on its port."""
        return f"{self.servers}254"

    @property
    def management(self):
        """Where health checks come from."""
        return f"{self.servers}250"

    @property
    def pool(self):
        """What full NAT speaks from."""
        return f"{self.servers}200"

    @property
    def nobody(self):
        """An address of the servers' network that nobody has."""
        return f"{self.servers}199"

    def vip(self, number):
        """Virtual address 101, 102 and so on."""
        return f"{self.servers}{number}"

    def server(self, name):
        """Address of s1, s2 or s3."""
        return f"{self.servers}1{name.removeprefix('s')}"

    def network(self, start):
        """`clients` or `servers` as the routing table writes it."""
        return f"{start}0/{self.prefix_len}"

    def net(self, address):
        """An address with the length of its network."""
        return f"{address}/{self.prefix_len}"

    def alone(self, address):
        """An address without a network."""
        return f"{address}/{self.address_len}"


V4 = Family(4, "10.80.0.", "10.90.0.", 24, 32, "0.0.0.0/0")
V6 = Family(6, "2001:db8:80::", "2001:db8:90::", 64, 128, "::/0")
FAMILIES = (V4, V6)
SERVERS = ("s1", "s2", "s3")


def endpoint(address, port):
    """An address with a port, as configurations and URLs write it."""
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def split(text):
    """Address and port of an endpoint, both as text."""
    address, port = text.rsplit(":", 1)
    return address.strip("[]"), port


def server_of(backend):
    """Name of the server that a backend's endpoint belongs to."""
    names = {family.server(name): name for family in FAMILIES for name in SERVERS}
    return names[split(backend)[0]]
