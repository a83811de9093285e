"""The official OpenADR 3.1.0 schema, as a reader of JSON Schema takes it."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import yaml
from jsonschema import Draft202012Validator

PATH = Path(__file__).parent.parent / "fixtures/openadr-3.1.0.yaml"
CLOSED = (
    "interval", "intervalPeriod", "valuesMap", "reportPayloadDescriptor",
    "eventPayloadDescriptor", "reportDescriptor",
)  # fmt: skip
"""Whose properties are all that there are: the schema itself would let a misspelt one pass."""


def check(name: str, value: object) -> None:
    """Raises `ValidationError` unless the value is what the schema calls by this name."""
    _validator(name).validate(value)


@cache
def _validator(name: str) -> Draft202012Validator:
    whole = {"$ref": f"#/components/schemas/{name}", "unevaluatedProperties": False}
    return Draft202012Validator(whole | {"components": {"schemas": _schemas()}})


@cache
def _schemas() -> dict[str, Any]:
    schemas: dict[str, Any] = yaml.safe_load(PATH.read_text("utf-8"))["components"]["schemas"]
    for name in CLOSED:
        schemas[name]["additionalProperties"] = False
    return {name: _translated(each) for name, each in schemas.items()}


def _translated(schema: Any) -> Any:
    """OpenAPI 3.0 has `nullable`, and `exclusiveMaximum` as a flag; JSON Schema has neither."""
    if isinstance(schema, list):
        return [_translated(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    plain = {key: _translated(each) for key, each in schema.items() if key not in ("nullable", "discriminator")}
    if plain.get("exclusiveMaximum") is True:
        plain["exclusiveMaximum"] = plain.pop("maximum")
    return {"anyOf": [plain, {"type": "null"}]} if schema.get("nullable") is True else plain
