"""A `tokenizer.json` of byte-level BPE (Radford et al. 2019), written from a vocabulary and its merges."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

Json = dict[str, object]


def _byte_letters() -> dict[int, str]:
    """GPT-2's stand-ins: printable Latin-1 bytes as themselves, each other byte as a letter from U+0100 on."""
    plain = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    rest = [byte for byte in range(256) if byte not in plain]
    return {byte: chr(byte) for byte in plain} | {byte: chr(256 + i) for i, byte in enumerate(rest)}


BYTE_LETTERS: Final = _byte_letters()


def special(index: int, text: str) -> Json:
    """A token that stands for itself wherever its text occurs, and is left out of decoded text."""
    return {
        "id": index,
        "content": text,
        "single_word": False,
        "lstrip": False,
        "rstrip": False,
        "normalized": False,
        "special": True,
    }


def byte_level(
    vocabulary: Mapping[str, int], merges: Sequence[tuple[str, str]], specials: Sequence[Json], *, split_digits: bool
) -> Json:
    """The whole file. `split_digits` makes each digit a word of its own, before GPT-2's rule is applied."""
    words: Json = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    digits: Json = {"type": "Digits", "individual_digits": True}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": list(specials),
        "normalizer": None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [digits, words]} if split_digits else words,
        "post_processor": None,
        "decoder": words,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": dict(vocabulary),
            "merges": [list(pair) for pair in merges],
        },
    }
