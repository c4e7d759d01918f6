# SPDX-License-Identifier: Apache-2.0
"""Every property of the client holds for both clients; ``face`` is each in turn."""

import pytest
from memory_appliance import Face, MemoryAppliance


@pytest.fixture
def memory() -> MemoryAppliance:
    """A fresh appliance in memory."""
    return MemoryAppliance()


@pytest.fixture(params=[False, True], ids=["sync", "async"])
def face(request: pytest.FixtureRequest) -> Face:
    """The synchronous, then the asynchronous client; not yet connected."""
    return Face(asynchronous=request.param)
