"""A publisher's command: `python -m fallow.models.publish NAME... --key FILE`.

Builds the manifests, signs them with the key in FILE (64 hex digits, never in a repository), writes
`models/published/NAME.manifest` and puts each bundle into the trust list that ships with the package.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import tomllib
from pathlib import Path

from nacl.signing import SigningKey

from ..node.engine.bundles import BundleStore
from ..protocol.envelope import sign
from ..protocol.errors import FallowError
from ..protocol.identity import cid
from .builder import write
from .publishing import key_at, trust_entry
from .recipes import recipe

PACKAGE = Path(__file__).parent.parent
_HEAD = """\
# The bundles that come trusted with this package: a name, the CID it stands for, and the key that published it.
# Written by `python -m fallow.models.publish`. <home>/trust.toml adds to it, and replaces entries of the same name.
"""


def default_store() -> BundleStore:
    """This user's store: `$FALLOW_HOME/store`, as everywhere."""
    home = os.environ.get("FALLOW_HOME")
    return BundleStore((Path(home) if home else Path.home() / ".fallow") / "store")


def publish(name: str, key: SigningKey, downloads: Path, package: Path = PACKAGE) -> str:
    """`name` is published in the package's sources under `package`; returns its CID."""
    with tempfile.TemporaryDirectory(dir=downloads, prefix="publish-") as scratch:
        model = recipe(name).make(downloads, lambda _stage, _fraction: None)
        manifest, _ = write(name, model, Path(scratch), lambda _stage, _fraction: None)
    signed = sign(manifest, key)
    directory = package / "models" / "published"
    directory.mkdir(parents=True, exist_ok=True)
    (directory / f"{name}.manifest").write_bytes(signed.envelope)
    _list(package / "client" / "trust.toml", name, cid(signed.id), signed.signer)
    return cid(signed.id)


def _list(path: Path, name: str, bundle_cid: str, publisher: bytes) -> None:
    old = tomllib.loads(path.read_text("utf-8")).get("bundle", []) if path.exists() else []
    entries = {
        entry["name"]: trust_entry(entry["name"], entry["cid"], bytes.fromhex(entry["publisher"])) for entry in old
    }
    entries[name] = trust_entry(name, bundle_cid, publisher)
    path.parent.mkdir(exist_ok=True)
    path.write_text(_HEAD + "".join(entries[name] for name in sorted(entries)), "utf-8")


def main() -> int:
    """Says each CID, or on stderr what went wrong."""
    parser = argparse.ArgumentParser(prog="python -m fallow.models.publish", description=publish.__doc__)
    parser.add_argument("names", nargs="+", metavar="NAME")
    parser.add_argument("--key", type=Path, required=True, help="the publisher's key; made if there is none")
    arguments = parser.parse_args()
    if PACKAGE.resolve() in arguments.key.resolve().parents:
        parser.error("the key must not lie in the package: it would be published too")
    try:
        for name in arguments.names:
            print(name, publish(name, key_at(arguments.key), default_store().downloads))
    except FallowError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
