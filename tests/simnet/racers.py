"""Prints in which order tasks ran that all could: `python racers.py SEED`."""

import sys
from functools import partial

import trio

from fallow.testnet.simnet.tasks.virtual import run_virtual


async def race() -> list[tuple[float, str]]:
    seen: list[tuple[float, str]] = []
    bell = trio.Event()

    async def run(name: str) -> None:
        await bell.wait()
        for _ in range(3):
            await trio.lowlevel.checkpoint()
            seen.append((round(trio.current_time(), 3), name))
        with trio.move_on_after(0.25):
            await trio.sleep_forever()
        seen.append((round(trio.current_time(), 3), name))

    async with trio.open_nursery() as nursery:
        for name in ("one", "two", "three", "four", "five"):
            nursery.start_soon(run, name, name=name)
        await trio.sleep(1)
        bell.set()
    return seen


if __name__ == "__main__":
    print(run_virtual(partial(race), int(sys.argv[1])))
