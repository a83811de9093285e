"""What is announced on which network, and which announcements are heard."""

from __future__ import annotations

import pytest
from nacl.signing import SigningKey

from fallow.node.network.identity import Multiaddr, id_of
from fallow.node.network.lan import _TEXT_BYTES_MAX, addresses_untrusted, announced
from fallow.protocol.limits import ADDRESSES_MAX

PEER = str(id_of(bytes(SigningKey(bytes(32)).verify_key)))


@pytest.mark.spec("D-28")
@pytest.mark.parametrize(
    ("listening", "said"),
    [
        (["/ip4/0.0.0.0/tcp/4001"], ["/ip4/192.168.1.7/tcp/4001"]),
        (["/ip4/192.168.1.7/tcp/4001", "/ip4/0.0.0.0/tcp/4001"], ["/ip4/192.168.1.7/tcp/4001"]),
        (["/ip4/10.0.0.1/tcp/4001", "/ip4/127.0.0.1/tcp/1", "/ip4/198.51.100.7/tcp/2"], []),
        ([], []),
    ],
)
def test_only_the_address_of_this_network_is_announced_on_it(listening: list[str], said: list[str]) -> None:
    assert announced([Multiaddr(each) for each in listening], "192.168.1.7") == said


@pytest.mark.spec("D-28")
def test_the_same_holds_for_ipv6() -> None:
    listening = [Multiaddr(f"/ip6/{each}/tcp/4001") for each in ("::", "fd00::7", "2001:db8::1")]
    assert announced(listening, "fd00::7") == ["/ip6/fd00::7/tcp/4001"]
    assert announced([Multiaddr("/ip4/0.0.0.0/tcp/4001")], "fd00::7") == []
    assert announced(listening, "192.168.1.7") == []


@pytest.mark.spec("D-29")
@pytest.mark.parametrize(
    ("text", "heard"),
    [
        (f"/ip4/192.168.1.7/tcp/4001/p2p/{PEER}", True),
        (f"/ip4/10.1.2.3/tcp/4001/p2p/{PEER}", True),
        (f"/ip6/fd00::7/tcp/4001/p2p/{PEER}", True),
        (f"/ip4/198.51.100.7/tcp/4001/p2p/{PEER}", False),
        (f"/ip4/127.0.0.1/tcp/4001/p2p/{PEER}", False),
        (f"/ip6/2001:db8::1/tcp/4001/p2p/{PEER}", False),
        (f"/dns4/example.org/tcp/4001/p2p/{PEER}", False),
        (f"/ip4/192.168.1.7/udp/4001/p2p/{PEER}", False),
        (f"/ip4/192.168.1.7/tcp/4001/p2p/{PEER}/p2p-circuit/p2p/{PEER}", False),
        ("/ip4/192.168.1.7/tcp/4001", False),
        ("/ip4/192.168.1.7/tcp/4001/p2p/QmNnooDu7bfjPFoTZYxMNLWUQJyrVwtbZg5gBMjTezGAJN", False),
        ("noise", False),
        (f"/ip4/192.168.1.7/tcp/4001/p2p/{PEER}{'/' * _TEXT_BYTES_MAX}", False),
    ],
)
def test_only_private_addresses_with_a_name_are_heard(text: str, heard: bool) -> None:
    assert addresses_untrusted({b"dnsaddr": text.encode()}) == ([text] if heard else [])
    assert addresses_untrusted({b"other": text.encode(), b"dnsaddr": None}) == []


def test_so_many_and_no_more() -> None:
    many = {b"dnsaddr%d" % n: f"/ip4/10.0.0.{n}/tcp/1/p2p/{PEER}".encode() for n in range(2 * ADDRESSES_MAX)}
    assert len(addresses_untrusted(many)) == ADDRESSES_MAX
