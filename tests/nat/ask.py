"""A client in one of the lab's places: each line on standard input is a request, what comes of it is said line by line."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import trio

from fallow.client import connect
from fallow.protocol.errors import FallowError


async def say(answer: object) -> None:
    await trio.to_thread.run_sync(lambda: print(json.dumps(answer), flush=True))


async def main(home: str, *bootstrap: str) -> None:
    async with connect(list(bootstrap), home=Path(home)) as mesh:
        await say({"joined": True})
        async for line in trio.wrap_file(sys.stdin):
            request = json.loads(line)
            stream = mesh.stream("tiny-chat", request["prompt"], max_tokens=request["tokens"], assurance="none",
                                 executors=request["executors"])  # fmt: skip
            try:
                async for _ in stream:
                    pass
                answer = stream.answer
                executors = [each.signed.signer.hex() for each in answer.receipts]
                await say(
                    {"text": answer.text, "tokens": len(answer.tokens), "executors": list(dict.fromkeys(executors))}
                )
            except FallowError as error:
                await say({"error": str(error)})


trio.run(main, *sys.argv[1:])
