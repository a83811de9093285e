"""Settings, keys and the trust list: what is wrong is said by its name."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from nacl.signing import SigningKey

from fallow.node import config
from fallow.node.keys import load_or_create
from fallow.node.mandates import Authority, current_mandate
from fallow.node.network.reach import Caps
from fallow.node.trust import TrustList
from fallow.protocol.bundle import File, Manifest, Program, Tolerance
from fallow.protocol.envelope import sign
from fallow.protocol.errors import ConfigError, StoreError
from fallow.protocol.identity import EXECUTOR, Issuer, check_mandate, cid
from fallow.protocol.limits import ISSUER_MS_MAX, MANDATE_MS_MAX, SKEW_MS

BAD = {
    "state": {},
    "stage": {"stage": 1},
    "listen": {"listen": "/ip4/127.0.0.1/tcp/0"},
    "kind": {"kind": "boat"},
    "region": {"region": "u33d"},
    "roles": {"roles": ["boss"]},
    "jobs_max": {"jobs_max": 0},
    "sandbox": {"sandbox": "please"},
    "accelerator": {"accelerator": 64},
    "accelerators": {"accelerators": [0, 64]},
    "settle_s": {"settle_s": True},
    "bundles": {"bundles": [1]},
    "fetch": {"fetch": "always"},
    "fetch_bundles": {"fetch_bundles": "tiny"},
    "store_bytes_max": {"store_bytes_max": -1},
    "max_bytes_sec_down": {"max_bytes_sec_down": 1.5},
    "max_bytes_sec_up": {"max_bytes_sec_up": "fast"},
    "daily_xfer_limit_mb": {"daily_xfer_limit_mb": 2**60},
    "daily_xfer_period_days": {"daily_xfer_period_days": 0},
    "reach": {"reach": "hidden"},
    "announce": {"announce": ["/ip4/192.0.2.1/udp/1"]},
    "relays": {"relays": 5},
    "hole_punching": {"hole_punching": "no"},
    "relay": {"relay": 5},
    "relay.circuits": {"relay": {"circuits": 0}},
    "relay.speed": {"relay": {"speed": 1}},
    "prices": {"prices": 5},
    "prices.draw": {"prices": {"draw": {}}},
    "prices.generate.input_token_ucr": {"prices": {"generate": {"input_token_ucr": -1}}},
    "prices.generate.token": {"prices": {"generate": {"token": 1}}},
}


@pytest.mark.parametrize("setting", BAD)
def test_a_bad_setting_is_named(setting: str) -> None:
    table = BAD[setting] if setting == "state" else {"state": "s", **BAD[setting]}
    with pytest.raises(ConfigError, match=f"`{setting}`") as error:
        config.parse(table, Path("/base"))
    assert error.value.code == "bad_config"


BAD_ANNOUNCED = [
    "192.0.2.1:4001", "/ip4/192.0.2.1", "/ip4/192.0.2.1/tcp/x", "/ip4/192.0.2.1/tcp/1/p2p/12D3KooW",
    "/ip4/192.0.2.1/tcp/1/p2p-circuit", "/onion3/x/tcp/1", "/ip4//tcp/1",
]  # fmt: skip


@pytest.mark.parametrize("address", BAD_ANNOUNCED)
def test_what_cannot_be_dialled_is_not_announced(address: str) -> None:
    with pytest.raises(ConfigError, match=r"`announce`.* is not of the form"):
        config.parse({"state": "s", "announce": [address]}, Path("/base"))
    with pytest.raises(ConfigError, match="`announce`"):
        config.parse({"state": "s", "announce": address}, Path("/base"))


def test_a_node_is_reached_as_its_kind_is_unless_its_owner_says_otherwise() -> None:
    def reach(**table: object) -> str:
        return config.parse({"state": "s", **table}, Path("/base")).reach

    assert [reach(kind=kind) for kind in config.KINDS] == ["relayed", "relayed", "direct", "direct"]
    assert reach() == "direct"
    for way in ("direct", "relayed", "auto"):
        assert reach(kind="vehicle", reach=way) == reach(reach=way) == way


def test_what_is_lent_as_a_relay_and_how_relays_are_used_is_the_owners_to_say() -> None:
    settings = config.parse({"state": "s"}, Path("/base"))
    assert (settings.is_relay, settings.relay, settings.relays, settings.hole_punching) == (False, Caps(), 2, True)
    assert settings.announce == ()
    caps = {"reservations": 1, "circuit_bytes": 2**30}
    table = {
        "roles": ["relay"], "relay": caps, "relays": 4, "hole_punching": False,
        "announce": ["/ip4/192.0.2.1/tcp/4001", "/ip6/2001:db8::1/tcp/4001", "/dns/example.org/tcp/1", "/dns4/a/tcp/2"],
    }  # fmt: skip
    settings = config.parse({"state": "s", **table}, Path("/base"))
    assert settings.is_relay
    assert settings.relay == Caps(reservations=1, circuit_bytes=2**30)
    assert (settings.relays, settings.hole_punching, len(settings.announce)) == (4, False, 4)
    for relays in (0, 5, True, "2"):
        with pytest.raises(ConfigError, match="`relays`"):
            config.parse({"state": "s", "relays": relays}, Path("/base"))
    for name in Caps.__dataclass_fields__:
        for value in (0, -1, 2**60, True, "1"):
            with pytest.raises(ConfigError, match=f"`relay.{name}`"):
                config.parse({"state": "s", "relay": {name: value}}, Path("/base"))


@pytest.mark.parametrize("kind", ["vehicle", "robot"])
def test_who_is_reached_through_relays_cannot_be_one(kind: str) -> None:
    for table in ({"kind": kind}, {"reach": "relayed"}):
        with pytest.raises(ConfigError, match=r"`roles`.*cannot be one"):
            config.parse({"state": "s", "roles": ["relay"], **table}, Path("/base"))
    assert config.parse({"state": "s", "roles": ["relay"], "kind": kind, "reach": "direct"}, Path("/base")).is_relay


def test_a_file_that_is_no_toml_or_not_there_is_said(tmp_path: Path) -> None:
    path = tmp_path / "node.toml"
    for text in (None, b"state = ", b"\xff"):
        if text is not None:
            path.write_bytes(text)
        with pytest.raises(ConfigError, match=str(path)):
            config.load(path)


def test_paths_count_from_the_files_directory_and_defaults_fit_the_kind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FALLOW_HOME", str(tmp_path / "home"))
    path = tmp_path / "node.toml"
    path.write_text('state = "car"\nkind = "vehicle"\n[prices.generate]\noutput_token_ucr = 9\n')
    settings = config.load(path)
    assert settings.state == tmp_path / "car"
    assert (settings.store, settings.owner_key) == (tmp_path / "home" / "store", tmp_path / "car" / "owner.key")
    assert (settings.settle_s, settings.jobs_max) == (300, 4)
    assert settings.prices["generate"] == config.EntryPrice(input_token_ucr=1, output_token_ucr=9)
    assert settings.prices["call"] == config.DEFAULT_PRICES["call"]


def test_the_mesh_of_the_environment_is_joined_unless_the_file_says_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FALLOW_BOOTSTRAP", raising=False)
    assert config.parse({"state": "s"}, Path("/base")).bootstrap == ()
    monkeypatch.setenv("FALLOW_BOOTSTRAP", "/dns4/a/tcp/1/p2p/x, /dns4/b/tcp/1/p2p/y,")
    assert config.parse({"state": "s"}, Path("/base")).bootstrap == ("/dns4/a/tcp/1/p2p/x", "/dns4/b/tcp/1/p2p/y")
    assert config.parse({"state": "s", "bootstrap": []}, Path("/base")).bootstrap == ()


def test_a_node_uses_one_accelerator_or_names_several_once() -> None:
    assert config.parse({"state": "s"}, Path("/base")).accelerators == ()
    assert config.parse({"state": "s", "accelerators": [2, 0]}, Path("/base")).accelerators == (2, 0)
    for wrong in ({"accelerators": [1, 1]}, {"accelerators": [0], "accelerator": 0}, {"accelerators": [True]}):
        with pytest.raises(ConfigError, match="`accelerators`"):
            config.parse({"state": "s", **wrong}, Path("/base"))


def test_a_home_that_cannot_be_a_directory_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (file := tmp_path / "file").touch()
    for home in (file, file / "below"):
        monkeypatch.setenv("FALLOW_HOME", str(home))
        with pytest.raises(ConfigError, match="FALLOW_HOME") as error:
            config.default_home()
        assert error.value.code == "bad_config"
        with pytest.raises(ConfigError, match="`home`"):
            config.parse({"state": "s", "home": str(home)}, tmp_path)


@pytest.mark.parametrize("state", ["a\0b", "~no-such-user/state"])
def test_a_path_that_no_file_can_have_is_said(state: str) -> None:
    with pytest.raises(ConfigError, match="`state`"):
        config.parse({"state": state}, Path("/base"))


def test_a_key_is_made_once_and_kept_private(tmp_path: Path) -> None:
    path = tmp_path / "keys" / "node.key"
    key = load_or_create(path)
    assert load_or_create(path) == key
    assert path.stat().st_mode & 0o777 == 0o600
    assert [file.name for file in path.parent.iterdir()] == ["node.key"]
    path.chmod(0o644)
    with pytest.raises(StoreError, match="Others can read"):
        load_or_create(path)
    path.chmod(0o600)
    path.write_bytes(b"short")
    with pytest.raises(StoreError) as error:
        load_or_create(path)
    assert error.value.code == "corrupt_store"


def test_a_key_file_that_cannot_be_read_or_made_is_said(tmp_path: Path) -> None:
    (file := tmp_path / "file").touch()
    (link := tmp_path / "link").symlink_to(tmp_path / "nowhere" / "far")
    for path in (tmp_path, file / "node.key", link, link / "node.key"):
        with pytest.raises(StoreError, match=str(path)) as error:
            load_or_create(path)
        assert error.value.code == "corrupt_store"


PUBLISHER = SigningKey(bytes(32))
FILE = File(0, (bytes(32),))
MANIFEST = Manifest(
    "tiny", "llama", "", "", ("generate",), FILE, (), (), (), (),
    (Program("p", "decode", 1, 1, 8, FILE, 0, 0),), FILE, None, 8, (),
    Tolerance(0, 0, 0, 0, 0, (), ""),
)  # fmt: skip


def _trust(home: Path, name: str, cid: str, publisher: bytes) -> TrustList:
    home.joinpath("trust.toml").write_text(
        f'[[bundle]]\nname = "{name}"\ncid = "{cid}"\npublisher = "{publisher.hex()}"\n'
    )
    return TrustList.load(home)


@pytest.mark.spec("B-5", "D-2")
def test_trust_is_in_one_bundle_by_one_publisher(tmp_path: Path) -> None:
    signed, forged = sign(MANIFEST, PUBLISHER), sign(MANIFEST, SigningKey(bytes([1] * 32)))
    trust = _trust(tmp_path, "tiny", cid(signed.id), bytes(PUBLISHER.verify_key))
    assert "tiny" in trust.names()
    assert trust.resolve("tiny") == trust.resolve(cid(signed.id))
    assert trust.trusts(signed, cid(signed.id))
    assert not trust.trusts(forged, cid(signed.id))
    assert not trust.trusts(forged, cid(forged.id))
    assert not _trust(tmp_path, "tiny", cid(forged.id), bytes(PUBLISHER.verify_key)).trusts(forged, cid(forged.id))


def test_the_users_own_list_replaces_entries_of_the_same_name(tmp_path: Path) -> None:
    shipped = TrustList.load(tmp_path)
    own = _trust(tmp_path, next(iter(shipped.names()), "tiny"), cid(bytes(32)), bytes(32))
    assert own.resolve(next(iter(shipped.names()), "tiny")).cid == cid(bytes(32))


@pytest.mark.spec("D-1")
def test_names_and_cids_that_nobody_vouches_for_are_told_apart(tmp_path: Path) -> None:
    trust = TrustList.load(tmp_path)
    for name, code in (("no-such-model", "unknown_name"), (cid(bytes(32)), "bundle_untrusted")):
        with pytest.raises(ConfigError) as error:
            trust.resolve(name)
        assert error.value.code == code


@pytest.mark.parametrize(
    "text", ["bundle = 1", "[[bundle]]\nname = 1", "x", '[[bundle]]\nname="a"\ncid="b"\npublisher="c"']
)
def test_a_bad_trust_list_is_said(tmp_path: Path, text: str) -> None:
    (tmp_path / "trust.toml").write_text(text)
    with pytest.raises(ConfigError, match=r"trust\.toml"):
        TrustList.load(tmp_path)


def test_a_trust_list_that_cannot_be_read_is_said(tmp_path: Path) -> None:
    path = tmp_path / "trust.toml"
    path.write_bytes(b'[[bundle]]\nname = "\xff"')
    with pytest.raises(ConfigError, match=r"trust\.toml is not TOML"):
        TrustList.load(tmp_path)
    path.unlink()
    path.mkdir()
    with pytest.raises(ConfigError, match=r"Cannot read .*trust\.toml") as error:
        TrustList.load(tmp_path)
    assert error.value.code == "bad_config"


@pytest.mark.spec("I-13")
def test_the_mandate_is_renewed_in_time_and_each_new_one_is_of_a_higher_epoch(tmp_path: Path) -> None:
    settings = config.parse({"state": str(tmp_path)}, tmp_path)
    node, owner, heir = bytes(32), authority(bytes(32)), authority(bytes([1] * 32))
    first = current_mandate(settings, node, owner, 10**12)
    assert current_mandate(settings, node, owner, 10**12 + MANDATE_MS_MAX // 2) == first
    later = 10**12 + MANDATE_MS_MAX - 1
    renewed = current_mandate(settings, node, owner, later)
    assert renewed.record == replace(first.record, epoch=later, not_before_ms=later, expires_ms=later + MANDATE_MS_MAX)
    inherited = current_mandate(settings, node, heir, later)
    assert (inherited.signer, inherited.record.epoch) == (heir.owner, renewed.record.epoch + 1)
    (tmp_path / "mandate").unlink()
    assert current_mandate(settings, node, heir, later + 2).record.epoch > inherited.record.epoch


def authority(seed: bytes) -> Authority:
    key = SigningKey(seed)
    return Authority(bytes(key.verify_key), key)


def entitled(tmp_path: Path, **changes: object) -> config.Config:
    """Settings of a node whose mandates are signed by an issuer; its owner's key is elsewhere."""
    owner, key = SigningKey(bytes([7] * 32)), load_or_create(tmp_path / "state" / "owner.key")
    record = Issuer(bytes(owner.verify_key), bytes(key.verify_key), 1, 10**12, 10**12 + ISSUER_MS_MAX)
    (tmp_path / "issuer.cose").write_bytes(sign(replace(record, **changes), owner).envelope)  # type: ignore[arg-type]
    return config.parse({"state": "state", "issuer": "issuer.cose"}, tmp_path)


def test_an_issuers_mandates_hold_and_pay_the_owner(tmp_path: Path) -> None:
    settings = entitled(tmp_path)
    mandate = current_mandate(settings, bytes(32), Authority.load(settings, 10**12), 10**12)
    check_mandate(mandate, bytes(32), EXECUTOR, 10**12)
    assert mandate.record.owner == bytes(SigningKey(bytes([7] * 32)).verify_key) != mandate.signer
    own = config.parse({"state": "state"}, tmp_path)
    after = current_mandate(own, bytes(32), Authority.load(own, 10**12), 10**12)
    assert after.record.owner == mandate.signer and after.record.epoch > mandate.record.epoch


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"issuer": bytes(32)}, "another key"),
        ({"expires_ms": 10**12 + 1}, "not valid at this time"),
        ({"owner": bytes(32)}, "not signed by the owner"),
    ],
)
def test_an_issuer_that_does_not_hold_is_said(tmp_path: Path, changes: dict[str, object], problem: str) -> None:
    settings = entitled(tmp_path, **changes)
    with pytest.raises(ConfigError, match=problem):
        Authority.load(settings, 10**12 + 2 * SKEW_MS)
    for content, said in ((b"noise", "is no issuer's record"), (b"", "is no issuer's record")):
        (tmp_path / "issuer.cose").write_bytes(content)
        with pytest.raises(ConfigError, match=said):
            Authority.load(settings, 10**12)
    (tmp_path / "issuer.cose").unlink()
    with pytest.raises(ConfigError, match="cannot be read"):
        Authority.load(settings, 10**12)


@pytest.mark.parametrize(
    ("table", "lan"),
    [({}, False), ({"kind": "vehicle"}, False), ({"kind": "robot"}, False), ({"kind": "site"}, True), ({"kind": "host"}, True),
     ({"kind": "site", "listen": ["/ip4/127.0.0.1/tcp/4001"]}, False),
     ({"kind": "host", "lan": False}, False), ({"kind": "vehicle", "lan": True}, True)],
)  # fmt: skip
def test_what_stays_where_it_is_is_found_on_its_lan(table: dict[str, object], lan: bool, tmp_path: Path) -> None:
    assert config.parse({"state": "s", "listen": ["/ip4/0.0.0.0/tcp/4001"], **table}, tmp_path).lan is lan
