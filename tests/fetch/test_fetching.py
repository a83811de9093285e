"""A bundle is fetched whole from whoever has it, whatever some of them do."""

from __future__ import annotations

import resource
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import trio

from fallow.node.engine.bundles import Bundle, BundleStore
from fallow.node.engine.partial import claim
from fallow.node.fetching import Fetched, Progress, fetch, find_in_table
from fallow.node.network.mesh import Mesh
from fallow.node.network.seam import Provider
from fallow.protocol.bundle import File
from fallow.protocol.envelope import sign
from fallow.protocol.errors import Code, NetworkError, StoreError
from fallow.protocol.identity import cid, content_hash
from fallow.protocol.limits import CHUNK_BYTES
from fallow.protocol.names import holder_key, provider_key

from .conftest import PUBLISHER, Sharing, install

Share = Callable[..., Awaitable[Sharing]]
Join = Callable[..., Awaitable[Mesh]]

LIMIT_S = 60


@pytest.fixture
def store(tmp_path: Path) -> BundleStore:
    return BundleStore(tmp_path / "store")


def from_these(*sources: Sharing) -> Callable[[], Awaitable[Sequence[Provider]]]:
    async def find() -> Sequence[Provider]:
        await trio.lowlevel.checkpoint()
        return [source.provider for source in sources]

    return find


async def fetched(network: Mesh, store: BundleStore, bundle: Bundle, *sources: Sharing) -> Fetched:
    with trio.fail_after(LIMIT_S):
        done = await fetch(network, store, bundle.cid, from_these(*sources))
    same_as(done.bundle, bundle)
    return done


def same_as(one: Bundle, other: Bundle) -> None:
    """Both are whole and of the same content; nothing else lies in the folder."""
    one.verify()
    assert one.signed == other.signed
    names = {path.relative_to(one.path) for path in one.path.rglob("*")}
    assert names == {path.relative_to(other.path) for path in other.path.rglob("*")}


async def never(_: bytes, content: bytes | None) -> bytes | None:
    await trio.sleep_forever()
    return content


async def test_a_bundle_comes_from_two_sources_and_each_chunk_once(
    join: Join, share: Share, origin: Bundle, store: BundleStore
) -> None:
    one, other = await share(1), await share(2)
    done = await fetched(await join(0), store, origin, one, other)
    assert sum(done.sources.values()) == done.bytes_fetched
    assert done.bytes_fetched > 11 * CHUNK_BYTES
    assert not done.wrong
    named = {chunk for file in origin.manifest.files().values() for chunk in file.chunks}
    assert set(one.asked + other.asked) == {origin.hash} | named - {content_hash(b"")}
    assert not (store.root / "partial" / origin.cid).exists()


async def test_two_who_are_fetching_give_each_what_it_has(
    join: Join, share: Share, origin: Bundle, store: BundleStore
) -> None:
    chunks = origin.manifest.weights.chunks

    def lacking(half: Sequence[bytes]) -> Callable[[bytes, bytes | None], Awaitable[bytes | None]]:
        async def answer(wanted: bytes, content: bytes | None) -> bytes | None:
            await trio.lowlevel.checkpoint()
            return None if wanted in half else content

        return answer

    one, other = await share(1, lacking(chunks[::2])), await share(2, lacking(chunks[1::2]))
    done = await fetched(await join(0), store, origin, one, other)
    assert min(done.sources[each.network.key] for each in (one, other)) >= 5 * CHUNK_BYTES
    assert not done.wrong


def test_what_has_come_of_a_bundle_is_given_on(origin: Bundle, store: BundleStore) -> None:
    chunks = origin.manifest.weights.chunks
    partial = claim(store, origin.cid)
    assert partial is not None
    with partial:
        assert partial.chunk(origin.hash) is None
        partial.begin(origin.signed.envelope)
        for wanted in chunks[:2]:
            assert partial.write(wanted, origin.chunk(wanted) or b"")
        assert [partial.chunk(each) == origin.chunk(each) for each in (origin.hash, *chunks[:3])] == [True] * 3 + [
            False
        ]
        assert partial.chunk(bytes(32)) is None
        with (partial.path / "weights.safetensors").open("r+b") as stream:
            stream.write(b"damage")
        assert partial.chunk(chunks[0]) is None


async def test_the_liar_is_remembered_the_frozen_overtaken_and_the_slow_one_of_use(
    join: Join, share: Share, origin: Bundle, store: BundleStore
) -> None:
    async def lie(wanted: bytes, content: bytes | None) -> bytes | None:
        await trio.lowlevel.checkpoint()
        return content if wanted == origin.hash or content is None else bytes(len(content))

    async def dawdle(_: bytes, content: bytes | None) -> bytes | None:
        await trio.sleep(0.1)
        return content

    liar, frozen, slow, good = await share(1, lie), await share(2, never), await share(3, dawdle), await share(4)
    done = await fetched(await join(0), store, origin, liar, frozen, slow, good)
    assert set(done.wrong) <= {liar.network.key}
    assert liar.network.key not in done.sources or done.sources[liar.network.key] <= len(origin.signed.envelope)
    assert frozen.network.key not in done.sources


@pytest.mark.spec("D-15", "D-18")
async def test_a_liar_alone_gives_nothing_and_is_not_asked_again(
    join: Join, share: Share, origin: Bundle, store: BundleStore
) -> None:
    async def lie(wanted: bytes, content: bytes | None) -> bytes | None:
        await trio.lowlevel.checkpoint()
        return content if wanted == origin.hash or content is None else content[:-1] + b"!"

    liar = await share(1, lie)
    seen: list[Progress] = []
    wrong: Counter[bytes] = Counter()
    network = await join(0)
    with trio.fail_after(LIMIT_S), pytest.raises(NetworkError) as caught:
        await fetch(network, store, origin.cid, from_these(liar), patience_s=3, wrong=wrong, on_progress=seen.append)
    assert caught.value.code is Code.PEER_UNREACHABLE
    assert seen[-1].bytes_done == 0
    asked = liar.asked.total()
    assert asked <= 1 + 4  # the manifest, and one pipeline full
    assert set(wrong) == {liar.network.key}
    with trio.fail_after(LIMIT_S), pytest.raises(NetworkError):
        await fetch(network, store, origin.cid, from_these(liar), patience_s=1, wrong=wrong)
    assert liar.asked.total() == asked
    assert store.list() == ()
    # What was begun goes on with somebody honest; on the disk there is nothing of what the liar gave.
    partial = claim(store, origin.cid)
    assert partial is not None
    with partial:
        assert partial.resume()
        partial.survey()
        assert len(partial.missing) >= 12
    done = await fetched(network, store, origin, await share(2))
    assert liar.asked.total() == asked
    assert done.bytes_fetched > 11 * CHUNK_BYTES


async def test_a_source_that_leaves_is_replaced_by_one_that_is_found(
    join: Join, share: Share, origin: Bundle, store: BundleStore
) -> None:
    given = 0

    async def leave(_: bytes, content: bytes | None) -> bytes | None:
        nonlocal given
        await trio.lowlevel.checkpoint()
        given += 1
        if given > 4:
            raise NetworkError(Code.STREAM_CLOSED, "this source has left")
        return content

    leaving, staying = await share(1, leave), await share(2)
    searches = 0

    async def find() -> Sequence[Provider]:
        nonlocal searches
        await trio.lowlevel.checkpoint()
        searches += 1
        return [leaving.provider] if searches == 1 else [staying.provider]

    with trio.fail_after(LIMIT_S):
        done = await fetch(await join(0), store, origin.cid, find)
    same_as(done.bundle, origin)
    assert set(done.sources) == {leaving.network.key, staying.network.key}


async def test_what_was_there_is_not_fetched_again(
    join: Join, share: Share, origin: Bundle, store: BundleStore
) -> None:
    half = origin.manifest.weights.chunks[:6]
    partial = claim(store, origin.cid)
    assert partial is not None
    with partial:
        partial.begin(origin.signed.envelope)
        for wanted in half:
            content = origin.chunk(wanted)
            assert content is not None
            assert partial.write(wanted, content)
        assert not partial.write(origin.manifest.weights.chunks[6], b"something else")
    with (partial.path / "weights.safetensors").open("r+b") as stream:
        stream.write(b"damaged meanwhile")
    source = await share(1)
    await fetched(await join(0), store, origin, source)
    assert half[0] in source.asked
    assert not set(half[1:]) & set(source.asked)
    assert origin.hash not in source.asked


async def test_a_chunk_of_another_bundle_of_this_store_is_not_fetched(
    join: Join, share: Share, origin: Bundle, store: BundleStore, tmp_path: Path
) -> None:
    install(store, tmp_path / "files", name="the-same-weights-under-another-name")
    source = await share(1)
    done = await fetched(await join(0), store, origin, source)
    assert set(source.asked) == {origin.hash}
    assert done.bytes_fetched == len(origin.signed.envelope)


async def test_two_fetches_into_one_store_share_the_work(
    join: Join, share: Share, origin: Bundle, store: BundleStore
) -> None:
    source, network = await share(1), await join(0)
    done: list[Fetched] = []
    stages: list[str] = []

    async def one() -> None:
        done.append(
            await fetch(
                network, store, origin.cid, from_these(source), on_progress=lambda said: stages.append(said.stage)
            )
        )

    with trio.fail_after(LIMIT_S):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(one)
            nursery.start_soon(one)
    assert max(source.asked.values()) == 1
    assert sorted(each.bytes_fetched > 0 for each in done) == [False, True]
    assert "another process fetches it" in stages


async def test_what_does_not_fit_is_refused_before_it_is_asked_for(
    join: Join, share: Share, origin: Bundle, store: BundleStore
) -> None:
    source = await share(1)
    with trio.fail_after(LIMIT_S), pytest.raises(StoreError) as caught:
        await fetch(await join(0), store, origin.cid, from_these(source), bytes_max=5 * CHUNK_BYTES)
    assert caught.value.code is Code.STORE_FULL
    assert set(source.asked) == {origin.hash}


async def test_a_bundle_that_no_disk_holds_is_refused_before_a_file_of_it_is_made(
    join: Join, share: Share, origin: Bundle, store: BundleStore, tmp_path: Path
) -> None:
    chunk = content_hash(b"")
    huge = File(20_000 * CHUNK_BYTES, (chunk,) * 20_000)
    programs = tuple(
        replace(origin.manifest.programs[0], name=f"p{number}", artifact=File(0, (chunk,))) for number in range(3)
    )
    signed = sign(replace(origin.manifest, weights=huge, programs=programs), PUBLISHER)
    hostile, source, network = Bundle(cid(signed.id), signed.id, signed, tmp_path), await share(1), await join(0)
    source.bundle = hostile
    for bytes_max in (2**30, 10 * CHUNK_BYTES):
        with trio.fail_after(LIMIT_S), pytest.raises(StoreError, match="may hold") as caught:
            await fetch(network, store, hostile.cid, from_these(source), bytes_max=bytes_max)
        assert caught.value.code is Code.STORE_FULL
    assert set(source.asked) == {hostile.hash}
    assert not list(store.root.rglob("weights.safetensors"))
    refused = StoreError(Code.CORRUPT_CHUNK, "not this one")

    def accept(_: object) -> None:
        raise refused

    with trio.fail_after(LIMIT_S), pytest.raises(StoreError) as caught:
        await fetch(network, store, origin.cid, from_these(await share(2)), accept=accept)
    assert caught.value is refused
    assert not list(store.root.rglob("weights.safetensors"))


def test_a_file_that_is_too_large_for_the_disk_is_said_to_be(store: BundleStore, origin: Bundle) -> None:
    partial, (soft, hard) = claim(store, origin.cid), resource.getrlimit(resource.RLIMIT_FSIZE)
    assert partial is not None
    with partial:
        resource.setrlimit(resource.RLIMIT_FSIZE, (CHUNK_BYTES, hard))
        try:
            with pytest.raises(StoreError) as caught:
                partial.begin(origin.signed.envelope)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert caught.value.code is Code.STORE_FULL


async def test_whoever_has_another_bundle_is_left_and_nobody_is_said(
    join: Join, share: Share, store: BundleStore
) -> None:
    source = await share(1)
    with trio.fail_after(LIMIT_S), pytest.raises(NetworkError, match="1 possible sources") as caught:
        await fetch(await join(0), store, cid(bytes(32)), from_these(source), patience_s=2)
    assert caught.value.code is Code.PEER_UNREACHABLE
    assert source.asked == {bytes(32): 1}
    with trio.fail_after(LIMIT_S), pytest.raises(NetworkError, match="Nobody"):
        await fetch(await join(2), store, cid(bytes(32)), from_these(), patience_s=2)


async def test_sources_are_found_in_the_table_whether_they_run_the_bundle_or_only_keep_it(
    join: Join, share: Share, origin: Bundle, store: BundleStore
) -> None:
    runs = await share(1)
    keeps = await share(2, bootstrap=runs.network.addresses())
    network = await join(0, runs.network.addresses())
    with trio.fail_after(LIMIT_S):
        await runs.network.provide(provider_key(origin.hash))
        await keeps.network.provide(holder_key(origin.hash))
        found = await find_in_table(network, origin.cid)()
    assert {provider.peer for provider in found} == {runs.network.key, keeps.network.key}
    with trio.fail_after(LIMIT_S):
        done = await fetch(network, store, origin.cid, find_in_table(network, origin.cid))
    same_as(done.bundle, origin)


async def test_a_damaged_bundle_is_mended_by_what_is_fetched(
    join: Join, share: Share, origin: Bundle, store: BundleStore
) -> None:
    shutil.copytree(origin.path, store.root / "bundles" / origin.cid)
    with (store.root / "bundles" / origin.cid / "weights.safetensors").open("r+b") as stream:
        stream.seek(3 * CHUNK_BYTES)
        stream.write(b"damage")
    source = await share(1)
    await fetched(await join(0), store, origin, source)
    assert set(source.asked) == {origin.hash, origin.manifest.weights.chunks[3]}


async def test_killed_in_the_middle_it_goes_on_and_asks_for_nothing_twice(
    join: Join, share: Share, origin: Bundle, store: BundleStore
) -> None:
    """What had come when the process got SIGKILL is there, and only the rest is asked for."""
    alive, given = True, set[bytes]()

    async def half(wanted: bytes, content: bytes | None) -> bytes | None:
        if alive and len(given) == 6:
            await trio.sleep_forever()
        if content is not None and len(content) == CHUNK_BYTES:
            given.add(wanted)
        await trio.lowlevel.checkpoint()
        return content

    source = await share(1, half)
    script = str(Path(__file__).with_name("fetcher.py"))
    words = [script, str(store.root), origin.cid, source.network.key.hex(), *source.network.addresses()]
    process = await trio.lowlevel.open_process([sys.executable, *words], stdout=subprocess.PIPE)
    assert process.stdout is not None
    try:
        with trio.fail_after(LIMIT_S):
            said = b""
            while not any(int(line) >= 6 * CHUNK_BYTES for line in said.split(b"\n")[:-1]):
                more = await process.stdout.receive_some()
                assert more, "the process ended"
                said += more
    finally:
        process.kill()
        with trio.CancelScope(shield=True), trio.fail_after(10):
            await process.wait()
            await process.stdout.aclose()
    alive, kept = False, set(given)
    partial = claim(store, origin.cid)
    assert partial is not None
    with partial:
        assert partial.resume()
        partial.survey()
        missing = set(partial.missing)
    assert not missing & kept
    source.asked.clear()
    done = await fetched(await join(0), store, origin, source)
    assert set(source.asked) <= missing
    assert max(source.asked.values(), default=1) == 1
    assert done.bytes_fetched <= 6 * CHUNK_BYTES + 2
