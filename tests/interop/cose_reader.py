"""Runs in an environment without Fallow: reads and writes COSE_Sign1 with the `cwt` library.

One JSON request a line: {"do": "verify", "envelope", "key", "aad"} answers {"payload"} or {"refused"}; {"do": "sign", "seed",
"payload", "aad"} answers {"envelope"}. Bytes are hexadecimal, `aad` is text.
"""

import json
import sys
from typing import Any

from cwt import COSE, COSEAlgs, COSEHeaders, COSEKey, COSEKeyParams, VerifyError

OKP, ED25519 = 1, 6


def verify(request: dict[str, str]) -> dict[str, str]:
    key = key_of(request["key"])
    envelope, aad = bytes.fromhex(request["envelope"]), request["aad"].encode()
    try:
        payload = COSE.new().decode(envelope, key, external_aad=aad)
    except (VerifyError, ValueError) as error:  # the latter for a key id that is not of this key
        return {"refused": str(error)}
    return {"payload": payload.hex()}


def sign(request: dict[str, str]) -> dict[str, str]:
    key = key_of(request["key"], request["seed"])
    protected = {COSEHeaders.ALG: COSEAlgs.ED25519, COSEHeaders.KID: bytes.fromhex(request["key"])}
    payload, aad = bytes.fromhex(request["payload"]), request["aad"].encode()
    envelope = COSE.new().encode_and_sign(payload, key, protected, {}, external_aad=aad)
    return {"envelope": envelope.hex()}


def key_of(public: str, seed: str = "") -> Any:
    fields = {
        COSEKeyParams.KTY: OKP,
        COSEKeyParams.ALG: COSEAlgs.ED25519,
        COSEKeyParams.CRV: ED25519,
        COSEKeyParams.KID: bytes.fromhex(public),
        COSEKeyParams.X: bytes.fromhex(public),
    }
    if seed:
        fields[COSEKeyParams.D] = bytes.fromhex(seed)
    return COSEKey.new(fields)


for line in sys.stdin:
    request = json.loads(line)
    print(json.dumps({"verify": verify, "sign": sign}[request["do"]](request)), flush=True)
