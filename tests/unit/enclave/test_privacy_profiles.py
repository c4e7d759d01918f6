# SPDX-License-Identifier: Apache-2.0
"""What the host can tell from sizes and times of sealed answers, profile by profile."""

import asyncio
from collections.abc import AsyncGenerator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from unit.enclave.harness import CHAT, Enclave, FakeEngine, Outer

from adyton_enclave.engine import Event, Finished, GenerationRequest, TextDelta, Usage
from adyton_enclave.pacing import Pacer, pad_chunk, shaped
from adyton_enclave.privacy import FRAME_BYTES, Profile, effective_profile, end_tick, padded_chunk_bytes
from adyton_protocol.padding import bucket
from adyton_protocol.sse import SseSplitter, is_comment

STREAM = CHAT | {"stream": True}
TAG = 16


def saying(*texts: str) -> FakeEngine:
    """An engine that says these words."""

    def script(_request: GenerationRequest) -> list[Event | Exception]:
        usage = Usage(prompt_tokens=1, completion_tokens=len(texts))
        return [
            *(TextDelta(index=0, text=text) for text in texts),
            Finished(index=0, finish_reason="stop", usage=usage),
        ]

    return FakeEngine(script)


class VirtualTime:
    """Sleeping moves the clock, at once."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.slept: list[float] = []
        self.awaited_s = float("inf")
        self.arrived = asyncio.Event()

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now_s += seconds
        if self.now_s >= self.awaited_s:
            self.arrived.set()
        for _ in range(5):
            await asyncio.sleep(0)

    async def reached(self, now_s: float) -> None:
        self.awaited_s = now_s
        await self.arrived.wait()

    def pacer(self) -> Pacer:
        return Pacer(monotonic=lambda: self.now_s, sleep=self.sleep)


async def events_of(*groups: bytes) -> AsyncGenerator[bytes, None]:
    """A stream of event groups."""
    for group in groups:
        yield group


async def outer_of(enclave: Enclave, body: dict[str, object]) -> Outer:
    """What the host sees."""
    sealed = enclave.seal(body)
    outer = await enclave.post(sealed.bytes, sealed.media_type)
    sealed.open(outer)
    return outer


async def test_size_hides_how_long_a_token_is() -> None:
    """Streams of short and of long words look the same, chunk by chunk, up to the receipt."""
    short = await outer_of(Enclave(engine=saying("a", "b", "c")), STREAM)
    long = await outer_of(Enclave(engine=saying("a" * 60, "b" * 150, "c" * 100)), STREAM)
    assert [len(part) for part in short.parts] == [len(part) for part in long.parts]


async def test_off_hides_nothing_and_says_so_in_bytes() -> None:
    """Without padding the chunk lengths follow the words."""
    outer = await outer_of(Enclave(engine=saying("a", "b" * 100)), STREAM | {"privacy": "off"})
    lengths = [len(part) for part in outer.parts]
    assert lengths[2] - lengths[1] == 99


async def test_whole_answers_come_in_buckets() -> None:
    """Profile ``size``: the sealed length is a bucket and the fixed overhead, whatever the answer."""
    for text in ("a", "a" * 400, "a" * 3000):
        outer = await outer_of(Enclave(engine=saying(text)), CHAT)
        sealed = outer.parts[0]
        overheads = {len(sealed) - size for size in (512, 1024, 2048, 4096, 8192)}
        assert overheads & set(range(32 + 2 + TAG, 32 + 4 + TAG + 1))


async def test_errors_and_answers_share_buckets() -> None:
    """A refused request and a short answer to ``/v1/models`` are not told apart by length."""
    enclave = Enclave()
    wrong = enclave.seal({"nonsense": True})
    models = enclave.seal(method="GET", path="/v1/models")
    one = await enclave.post(wrong.bytes, wrong.media_type)
    two = await enclave.post(models.bytes, models.media_type)
    assert [len(part) for part in one.parts] == [len(part) for part in two.parts]


@given(st.integers(0, 100_000))
def test_padded_chunks_are_multiples_and_at_least_two(length: int) -> None:
    """At least 512, a multiple of 256, never shorter than the content and by less than 512 longer."""
    padded = padded_chunk_bytes(length)
    assert padded % 256 == 0
    assert padded >= max(512, length)
    assert padded - length <= 512


@given(st.binary(min_size=1, max_size=2000))
def test_padding_a_chunk_changes_no_event(content: bytes) -> None:
    """The events survive, only comments are added, and the length is exact."""
    event = b"data: " + content.hex().encode() + b"\n\n"
    padded = pad_chunk(event)
    assert len(padded) % 256 == 0
    splitter = SseSplitter()
    groups = splitter.push(padded)
    assert groups[0] == event
    assert all(is_comment(group) for group in groups[1:])


@given(st.integers(1, 5000))
def test_ends_are_bucketed(ticks: int) -> None:
    """Never before the work is done, and at most twice as long beyond the first bucket."""
    end = end_tick(ticks)
    assert end >= ticks
    assert end == 16 or end < 2 * ticks + 1
    assert end in {16, 32, 64, 128, 256, 512} or end % 512 == 0


async def test_cadence_is_one_fixed_frame_per_tick() -> None:
    """Whatever is said, 512 bytes per 100 ms from acceptance to a bucketed end, and nothing is lost."""
    time = VirtualTime()
    groups = [b"data: " + bytes([97 + at]) * (40 * at + 1) + b"\n\n" for at in range(20)]
    start = time.now_s
    frames = []
    at_s = []
    async for frame in shaped(events_of(*groups), Profile.CADENCE, time.pacer(), start_s=start):
        frames.append(frame)
        at_s.append(round(time.now_s, 6))
    assert {len(frame) for frame in frames} == {FRAME_BYTES}
    assert len(frames) == end_tick(len(frames))
    assert at_s == [round(0.1 * tick, 6) for tick in range(len(frames))]
    splitter = SseSplitter()
    seen = splitter.push(b"".join(frames))
    assert splitter.finish() == b""
    assert [group for group in seen if not is_comment(group)] == groups


@given(st.lists(st.integers(0, 1200), min_size=1, max_size=12))
def test_cadence_loses_nothing_whatever_the_sizes(sizes: list[int]) -> None:
    """Gaps of every size are filled with comments that split no event."""

    async def run() -> None:
        groups = [b"data: " + b"x" * size + b"\n\n" for size in sizes]
        time = VirtualTime()
        stream = shaped(events_of(*groups), Profile.CADENCE, time.pacer(), start_s=0.0)
        frames = [frame async for frame in stream]
        assert {len(frame) for frame in frames} == {FRAME_BYTES}
        assert len(frames) == end_tick(len(frames))
        splitter = SseSplitter()
        seen = splitter.push(b"".join(frames))
        assert splitter.finish() == b""
        assert [group for group in seen if not is_comment(group)] == groups

    asyncio.run(run())


async def test_cadence_ticks_while_nothing_is_said() -> None:
    """An answer that takes its time sends empty frames meanwhile."""
    time = VirtualTime()

    async def slow() -> AsyncGenerator[bytes, None]:
        await time.reached(3.0)
        yield b"data: late\n\n"

    frames = [frame async for frame in shaped(slow(), Profile.CADENCE, time.pacer(), start_s=0.0)]
    assert len(frames) == 32
    assert b"late" not in b"".join(frames[:29])
    assert b"late" in b"".join(frames)


async def test_closing_a_paced_stream_closes_what_is_behind_it() -> None:
    """A client that hangs up stops the work at once, in every profile."""
    for profile in Profile:
        closed = asyncio.Event()

        async def endless(closed: asyncio.Event = closed) -> AsyncGenerator[bytes, None]:
            try:
                while True:
                    yield b"data: x\n\n"
                    await asyncio.sleep(0)
            finally:
                closed.set()

        stream = shaped(endless(), profile, VirtualTime().pacer(), start_s=0.0)
        await anext(stream)
        await stream.aclose()
        assert closed.is_set()


async def test_a_cadenced_answer_through_the_gateway() -> None:
    """All sealed chunks but the first have one size, and the answer is whole."""
    enclave = Enclave(engine=saying("a", "b" * 100, "c"))
    time = VirtualTime()
    enclave.gateway._pacer = time.pacer()
    sealed = enclave.seal(STREAM | {"privacy": "cadence"})
    outer = await enclave.post(sealed.bytes, sealed.media_type)
    inner = sealed.open(outer)
    sealed.check_receipt(inner, enclave.keyset)
    lengths = [len(part) for part in outer.parts]
    assert len(set(lengths[1:-2])) == 1
    assert len(lengths) == 16 + 2


async def test_a_whole_answer_under_cadence_waits_for_its_bucket() -> None:
    """Also without streaming, the time tells only the bucket."""
    enclave = Enclave()
    time = VirtualTime()
    enclave.gateway._pacer = time.pacer()
    sealed = enclave.seal(CHAT | {"privacy": "cadence"})
    sealed.open(await enclave.post(sealed.bytes, sealed.media_type))
    assert round(time.now_s, 6) == 1.6


async def test_the_floor_raises_what_was_asked_for() -> None:
    """An operator's floor of ``size`` cannot be switched off by a request."""
    enclave = Enclave('[privacy]\nfloor = "size"', engine=saying("a", "b" * 100))
    outer = await outer_of(enclave, STREAM | {"privacy": "off"})
    assert len({len(part) for part in outer.parts[1:4]}) == 1


@pytest.mark.parametrize(
    ("requested", "default", "floor", "expected"),
    [
        (None, "size", "off", "size"),
        ("off", "size", "off", "off"),
        ("off", "size", "size", "size"),
        ("size", "off", "cadence", "cadence"),
        ("cadence", "off", "off", "cadence"),
        (None, "off", "cadence", "cadence"),
    ],
)
def test_the_effective_profile(requested: str | None, default: str, floor: str, expected: str) -> None:
    """The wish or the default, never below the floor."""
    wish = None if requested is None else Profile(requested)
    assert effective_profile(wish, default=Profile(default), floor=Profile(floor)) is Profile(expected)


def test_the_request_bucket_is_the_protocols() -> None:
    """Whole answers use the protocol's buckets."""
    assert bucket(513) == 1024
