"""Loads one bundle as a worker does, so that its compiled programs are in the store's cache: `STORE CID`."""

from __future__ import annotations

import sys
from pathlib import Path

from ..node.engine.bundles import BundleStore
from ..node.engine.device import configure
from ..node.engine.kept import Kept
from ..node.engine.loading import own_grant
from ..node.engine.programs import load
from ..node.engine.sequences import rehearsal
from ..protocol.errors import FallowError


def main(root: str, cid: str) -> int:
    """Exits 1, with the reason on stderr's last line, if the bundle cannot be run."""
    store = BundleStore(Path(root))
    try:
        bundle = store.open(cid)
        configure(store.compile_cache, devices=bundle.manifest.devices or 1)
        model = load(bundle, own_grant(Kept(store.compile_cache)))
        while model.load_next():
            pass
        for _ in rehearsal(model):
            pass
    except FallowError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
