# SPDX-License-Identifier: Apache-2.0
"""Who gets how much of the machine: equal work for tenants, precedence for normal priority, and nobody starves."""

from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st
from unit.engine.test_scheduler import Bench

from adyton_enclave.engine.choice import ChoiceGroup
from adyton_enclave.engine.sequence import Phase


def _work(bench: Bench, groups: list[ChoiceGroup], steps: int) -> Counter[str]:
    """Step while all these tenants have something to do; tokens computed for each."""
    before = Counter(bench.computed)
    last = {group.request.tenant: group for group in groups}.values()
    for _ in range(steps):
        if any(group.sequences[-1].phase is Phase.DONE for group in last):
            break
        bench.step()
    return bench.computed - before


@settings(max_examples=30)
@given(
    prompts=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    answers=st.tuples(st.integers(1, 20), st.integers(1, 20)),
    requests=st.tuples(st.integers(1, 6), st.integers(1, 6)),
    n=st.tuples(st.integers(1, 4), st.integers(1, 4)),
)
def test_work_is_shared_equally_whatever_tenants_ask_for(
    prompts: tuple[int, int], answers: tuple[int, int], requests: tuple[int, int], n: tuple[int, int]
) -> None:
    """Two tenants with endless work each get the same number of tokens, up to what one request can take."""
    bench = Bench(cells=400, max_sequences=1, n_batch=16, prefill=16)
    groups = [
        bench.add(prompts[who], answer=answers[who], n=n[who], tenant="ab"[who])
        for who in (0, 1)
        for _ in range(4 * requests[who])
    ]
    served = _work(bench, groups, 4000)
    largest = max(prompts[who] + answers[who] for who in (0, 1))
    assert abs(served["a"] - served["b"]) <= 2 * largest


def test_a_crowd_of_long_answers_makes_room_for_a_newcomer() -> None:
    """All places are taken for hundreds of steps; another tenant's request waits for tens of them."""
    bench = Bench(cells=2000, max_sequences=8, n_batch=64, prefill=64)
    crowd = [bench.add(20, answer=150, tenant="crowd") for _ in range(12)]
    for _ in range(50):
        bench.step()
    small = bench.add(100, answer=10, tenant="small")
    steps = 0
    while small.sequences[0].phase is not Phase.DONE:
        bench.step()
        steps += 1
    assert steps <= 100 // 8 + 3 + 10 + 2
    assert sum(s.phase is Phase.RUNNING for g in crowd for s in g.sequences) >= 7
    while bench.scheduler.busy:
        bench.step()
    assert all(group.sequences[0].n_generated == 150 for group in crowd)


def test_a_large_request_is_not_overtaken_for_ever() -> None:
    """Small requests keep coming and would always fit; the large one is admitted all the same."""
    bench = Bench(cells=200, max_sequences=8)
    large = None
    for step in range(400):
        bench.add(10, answer=10, tenant="small")
        bench.step()
        if step == 20:
            large = bench.add(150, answer=2, tenant="large")
        if large is not None and large.sequences[0].phase is Phase.DONE:
            return
    raise AssertionError("the large request never had its turn")


def test_normal_priority_goes_first_and_takes_the_place_of_low() -> None:
    """Running low work gives its place at once, comes back afterwards, and loses no token of its answer."""
    bench = Bench(cells=200, max_sequences=2)
    low = [bench.add(10, answer=50, priority="low") for _ in range(3)]
    for _ in range(5):
        bench.step()
    kept = list(low[1].sequences[0].token_ids)
    normal = bench.add(10, answer=5)
    bench.step()
    assert normal.sequences[0].phase is Phase.RUNNING
    assert low[0].sequences[0].phase is Phase.RUNNING
    assert low[1].sequences[0].phase is Phase.WAITING
    while bench.scheduler.busy:
        bench.step()
    assert low[1].sequences[0].token_ids[: len(kept)] == kept
    assert [group.sequences[0].n_generated for group in low] == [50] * 3


def test_low_priority_is_preempted_first_when_cells_run_out() -> None:
    """The low sequence goes, though a normal one was admitted after it."""
    bench = Bench(cells=100, max_sequences=3)
    first, low, last = (
        bench.add(10, answer=60),
        bench.add(10, answer=60, priority="low"),
        bench.add(10, answer=60),
    )
    while low.sequences[0].phase is not Phase.DONE:
        bench.step()
        low_runs = low.sequences[0].phase is Phase.RUNNING
        for group in (first, last):
            assert group.sequences[0].phase is not Phase.WAITING or not low_runs or not group.started
    assert low.sequences[0].n_generated == 60


def test_low_priority_never_displaces_normal() -> None:
    """However far behind its tenant is."""
    bench = Bench(cells=400, max_sequences=2)
    normal = [bench.add(10, answer=80, tenant="normal") for _ in range(2)]
    for _ in range(40):
        bench.step()
    bench.add(1, answer=1, tenant="low", priority="low")
    for _ in range(30):
        bench.step()
        assert all(group.sequences[0].phase is Phase.RUNNING for group in normal)


def test_idling_earns_no_credit() -> None:
    """A tenant that was away for long gets its share from now on, not what it left unused."""
    bench = Bench(cells=400, max_sequences=1)
    away = bench.add(5, answer=5, tenant="away")
    busy = [bench.add(5, answer=20, tenant="busy") for _ in range(30)]
    while busy[10].sequences[0].phase is not Phase.DONE:
        bench.step()
    assert away.sequences[0].phase is Phase.DONE
    back = [bench.add(5, answer=20, tenant="away") for _ in range(12)]
    served = _work(bench, [*busy[11:], *back], 150)
    assert abs(served["away"] - served["busy"]) <= 50
