"""`fallow testnet export`: a test network for more than one machine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from ..protocol.errors import Code, ConfigError
from ..testnet.export.cluster import (
    BUNDLES,
    IMAGE,
    Cluster,
    check_load,
    check_names,
    parse_counts,
    parse_regions,
    plan_groups,
)
from .environment import AsJson, usable
from .output import print_json, remark

NAMESPACE = "fallow-testnet"


def export(
    *,
    kubernetes: Annotated[bool, Parameter(help="Manifests, to be applied in the order of their names.")] = False,
    compose: Annotated[bool, Parameter(help="A compose file.")] = False,
    out: Annotated[Path, Parameter(help="Folder to write into; it must be new or empty.")],
    nodes: Annotated[int, Parameter(help="How many, the first one among them, adversaries beside them.")] = 6,
    kinds: Annotated[
        str | None, Parameter(help="In which proportions, such as vehicle=2,robot=2,site=1,host=1.")
    ] = None,
    adversaries: Annotated[str, Parameter(help="Such as liar=2,quantiser=1.")] = "",
    regions: Annotated[str, Parameter(help="Geohashes of at most 3 characters, given out in turn.")] = "",
    bundles: Annotated[str, Parameter(help="What every node serves; the image has to hold it.")] = ",".join(BUNDLES),
    image: Annotated[str, Parameter(help="What every container runs; see testnet/README.md.")] = IMAGE,
    namespace: Annotated[str, Parameter(help="Of Kubernetes.")] = NAMESPACE,
    minutes: Annotated[int, Parameter(help="For how long the load asks.")] = 10,
    clients: Annotated[int, Parameter(help="How many of its clients ask side by side.")] = 8,
    json: AsJson = False,
) -> None:
    """Nothing is started. The folder holds the first node's key: it is for a test network and nothing else."""
    from ..testnet.export.compose import KEY_FILE, compose_files
    from ..testnet.export.kubernetes import manifests

    if kubernetes is compose:
        raise ConfigError(Code.BAD_CONFIG, "Say for what it is to be written: --kubernetes or --compose.")
    names = tuple(filter(None, map(str.strip, bundles.split(","))))
    check_names(namespace, image, names)
    check_load(minutes, clients)
    shares = parse_counts(kinds, "KIND") if kinds is not None else None
    groups = plan_groups(nodes, shares, parse_counts(adversaries, "ADVERSARY"))
    cluster = Cluster(groups, names, parse_regions(regions), image, minutes, clients)
    files = manifests(cluster, namespace) if kubernetes else compose_files(cluster)
    with usable("--out", out):
        out.mkdir(parents=True, exist_ok=True)
        if any(out.iterdir()):
            raise ConfigError(Code.BAD_CONFIG, f"{out} is not empty; what is in it was left as it is.")
        for name, text in files.items():
            (out / name).write_text(text, encoding="utf-8")
    if json:
        print_json({"files": [str(out / name) for name in files], "first": cluster.peer})
    else:
        remark(f"{', '.join(files)} written to {out}")
        remark(
            f"next: kubectl apply -f {out}"
            if kubernetes
            else f"next: docker compose up, in {out}; {KEY_FILE} stays there"
        )
