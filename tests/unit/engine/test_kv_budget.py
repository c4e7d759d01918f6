# SPDX-License-Identifier: Apache-2.0
"""The books of KV cells against a model that remembers every single cell."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adyton_enclave.engine.kv_budget import KvBudget, KvLease
from adyton_protocol.errors import OutOfMemory


@given(st.data())
def test_books_equal_sets_of_cells(data: st.DataObject) -> None:
    """Under any mix of growth, forks at any point and releases, used equals the union of all leases' cells."""
    budget = KvBudget(100)
    leases: list[tuple[KvLease, list[int]]] = []
    fresh = 0
    for _ in range(data.draw(st.integers(1, 30))):
        move = data.draw(st.sampled_from(["open", "grow", "fork", "release"]))
        if move == "open" or not leases:
            leases.append((budget.lease(), []))
            continue
        lease, cells = leases[data.draw(st.integers(0, len(leases) - 1))]
        if move == "grow":
            count = data.draw(st.integers(0, 20))
            if count > budget.free:
                with pytest.raises(OutOfMemory):
                    lease.grow(count)
            else:
                lease.grow(count)
                cells += range(fresh, fresh + count)
                fresh += count
        elif move == "fork":
            length = data.draw(st.integers(0, len(cells)))
            leases.append((lease.fork(length), cells[:length]))
        else:
            lease.release()
            lease.release()
            leases = [entry for entry in leases if entry[0] is not lease]
        assert budget.used == len(set().union(*(set(cells) for _, cells in leases)))
        assert all(lease.length == len(cells) for lease, cells in leases)
    for lease, _ in leases:
        lease.release()
    assert budget.used == 0


def test_a_fork_cannot_share_what_is_not_there() -> None:
    """Forking beyond the end is a mistake of ours, not memory."""
    with pytest.raises(ValueError, match="prefix"):
        KvBudget(4).lease().fork(1)


def test_a_released_lease_is_dead() -> None:
    """A released lease neither grows nor forks."""
    lease = KvBudget(4).lease()
    lease.release()
    with pytest.raises(ValueError, match="released"):
        lease.grow(1)
