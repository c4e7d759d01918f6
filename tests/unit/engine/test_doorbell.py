# SPDX-License-Identifier: Apache-2.0
"""Nothing that is rung in is lost, whenever the loop looks, and readers that fall behind get joined deltas."""

import asyncio
import threading
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from adyton_enclave.engine import Event, Finished, TextDelta, Usage
from adyton_enclave.engine.doorbell import Doorbell
from adyton_enclave.engine.generation import Mailbox

USAGE = Usage(prompt_tokens=1, completion_tokens=1)


def _descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


async def test_every_ring_is_served_in_order() -> None:
    """From another thread, many times, while the loop is busy or idle."""
    bell = Doorbell(asyncio.get_running_loop())
    served: list[int] = []
    done = asyncio.Event()

    def ring() -> None:
        for number in range(2000):
            bell.ring([lambda number=number: served.append(number)])  # type: ignore[misc]
        bell.ring([done.set])

    thread = threading.Thread(target=ring)
    thread.start()
    await done.wait()
    thread.join()
    bell.close()
    assert served == list(range(2000))


async def test_closing_serves_what_waits_and_frees_the_descriptors() -> None:
    """The last words of an engine that stops still arrive."""
    before = _descriptors()
    bell = Doorbell(asyncio.get_running_loop())
    served: list[str] = []
    bell.ring([lambda: served.append("last")])
    bell.close()
    bell.close()
    assert served == ["last"]
    assert _descriptors() == before


_EVENTS = st.lists(st.tuples(st.integers(0, 3), st.text(max_size=3)), max_size=30)


@given(pieces=_EVENTS, cuts=st.sets(st.integers(0, 30)))
def test_a_late_reader_gets_the_same_text_in_fewer_pieces(
    pieces: list[tuple[int, str]], cuts: set[int]
) -> None:
    """However deliveries and reads interleave: every text whole, every end after its text, no more events than sent."""

    async def run() -> tuple[list[Event], int]:
        bell = Doorbell(asyncio.get_running_loop())
        mailbox = Mailbox(bell, USAGE)
        read: list[Event] = []
        for number, (index, text) in enumerate(pieces):
            mailbox.post(TextDelta(index=index, text=text))
            mailbox.collect(USAGE)()
            if number in cuts:
                event = await mailbox.next()
                assert event is not None
                read.append(event)
        for index in range(4):
            mailbox.post(Finished(index=index, finish_reason="stop", usage=USAGE))
        mailbox.close()
        mailbox.collect(USAGE)()
        late = 0
        while (event := await mailbox.next()) is not None:
            read.append(event)
            late += 1
        bell.close()
        return read, late

    read, late = asyncio.run(run())
    assert late <= 8
    for index in range(4):
        own = [event for event in read if event.index == index]
        assert isinstance(own[-1], Finished)
        texts = [event.text for event in own[:-1] if isinstance(event, TextDelta)]
        assert len(texts) == len(own) - 1
        assert "".join(texts) == "".join(text for at, text in pieces if at == index)


async def test_what_somebody_waits_for_is_urgent() -> None:
    """A first token and an end do not wait for more; the tokens between may."""
    bell = Doorbell(asyncio.get_running_loop())
    mailbox = Mailbox(bell, USAGE)
    assert not mailbox.urgent
    seen = []
    for event in (
        TextDelta(index=0, text="a"),
        TextDelta(index=0, text="b"),
        Finished(index=0, finish_reason="stop", usage=USAGE),
    ):
        mailbox.post(event)
        seen.append(mailbox.urgent)
        mailbox.collect(USAGE)()
    mailbox.close()
    bell.close()
    assert [*seen, mailbox.urgent] == [True, False, True, True]
