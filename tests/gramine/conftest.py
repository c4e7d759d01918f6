# SPDX-License-Identifier: Apache-2.0
"""Without gramine-direct on the PATH these tests skip, and say so; `make test-gramine` runs them."""

from collections.abc import Iterator

import pytest
from gramine_image import GRAMINE, Image, render

from appliance import Appliance, running


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what needs Gramine where there is none."""
    skip = pytest.mark.skip(reason="gramine-direct is not on the PATH; docs/gramine.md says how to get it")
    for item in items:
        if GRAMINE is None and item.get_closest_marker("gramine"):
            item.add_marker(skip)


@pytest.fixture(scope="session")
def image(tmp_path_factory: pytest.TempPathFactory) -> Image:
    """The shipped models in an image for gramine-direct."""
    return render(tmp_path_factory.mktemp("gramine"))


@pytest.fixture(scope="module")
def gramine_appliance(image: Image) -> Iterator[Appliance]:
    """Host and enclave, the enclave under gramine-direct."""
    with running(image.simulation_dir.parent, "--enclave", str(image.directory)) as started:
        yield started
