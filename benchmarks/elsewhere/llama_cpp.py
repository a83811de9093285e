"""llama.cpp (`xllamacpp`) over a GGUF file: `llama_cpp.py GGUF PROMPT TOKENS STREAMS`.

Asked and answering as `torch_llama.py` is. The rates are those that llama.cpp's server gives with each answer.
"""

from __future__ import annotations

import json
import os
import sys
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import xllamacpp


def serving(gguf: str, context: int, streams: int) -> Any:
    """A server in this process, with so many slots of that context, on a port of its own of this machine."""
    settings = xllamacpp.CommonParams()
    settings.model.path, settings.warmup, settings.port = gguf, False, 0
    settings.n_parallel, settings.n_ctx = streams, context * streams
    settings.cpuparams.n_threads = settings.cpuparams_batch.n_threads = os.cpu_count() or 1
    return xllamacpp.Server(settings)


def completion(address: str, prompt: list[int], tokens: int) -> dict[str, Any]:
    """The server's answer: exactly so many tokens, the likeliest ones, of a prompt that it reads whole."""
    asked = {
        "prompt": prompt,
        "n_predict": tokens,
        "ignore_eos": True,
        "cache_prompt": False,
        "temperature": 0,
        "return_tokens": True,
    }
    request = urllib.request.Request(
        f"{address}/completion", json.dumps(asked).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request) as answer:
        found: dict[str, Any] = json.load(answer)
    return found


def main() -> None:
    gguf, prompt, tokens, streams = sys.argv[1], json.loads(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
    context = -(-(len(prompt) + tokens) // 256) * 256
    server = serving(gguf, context, streams)
    address = server.listening_address
    print("ready", flush=True)
    with ThreadPoolExecutor(streams) as pool:
        for _ in sys.stdin:
            one = completion(address, prompt, tokens)
            many = list(pool.map(lambda _: completion(address, prompt, tokens), range(streams)))
            together = sum(each["timings"]["predicted_per_second"] for each in many)
            timings = one["timings"]
            rates = timings["predicted_per_second"], together, timings["prompt_per_second"]
            print(json.dumps([*rates, one["tokens"]]), flush=True)


if __name__ == "__main__":
    main()
