# SPDX-License-Identifier: Apache-2.0
"""What is looked at, in which order: the machine from the processor up, then what is to run on it."""

from dataclasses import dataclass
from pathlib import Path

from adyton_host.doctor.clock import examine_clock
from adyton_host.doctor.driver import examine_driver
from adyton_host.doctor.finding import Finding
from adyton_host.doctor.gramine import examine_gramine
from adyton_host.doctor.images import examine_image, memory_need, need_of
from adyton_host.doctor.machine import Machine
from adyton_host.doctor.memory import MemoryNeed, examine_huge_files, examine_hugepages, examine_memory
from adyton_host.doctor.processor import examine_processor
from adyton_host.doctor.quoting import examine_quoting
from adyton_host.doctor.software import examine_model, examine_port, examine_python, examine_software
from adyton_host.doctor.storage import examine_disk, examine_endorsements
from adyton_host.image import trusted_sizes


@dataclass(frozen=True, slots=True, kw_only=True)
class Wishes:
    """What is to run.

    Attributes:
        host: Address of the relay.
        port: Its port; 0 for any, which is not looked at.
        state: State directory.
        catalog: Catalog of models for a simulated enclave; None for the checkout's own.
        image: Directory of the enclave image.
        endorsements: What clients are to be served.
    """

    host: str
    port: int
    state: Path
    catalog: Path | None
    image: Path
    endorsements: Path


def examine_simulation(machine: Machine, wishes: Wishes) -> tuple[Finding, ...]:
    """What a simulated enclave needs."""
    model, _ = examine_model(wishes.catalog)
    return (
        *examine_software(),
        model,
        *_port(wishes),
        examine_disk(machine, wishes.state),
        examine_clock(machine),
        examine_hugepages(machine),
    )


def examine_hardware(machine: Machine, wishes: Wishes) -> tuple[Finding, ...]:
    """What a real enclave needs. Nothing that only rendering an image needs: that may happen elsewhere."""
    about_image, image = examine_image(wishes.image)
    need = memory_need(image) if image else _need_of_model(wishes)
    sgx, *more = examine_processor(machine, image.cpu_features if image else None)
    return (
        examine_python(),
        sgx,
        *more,
        *examine_driver(machine),
        *examine_quoting(machine),
        examine_gramine(machine),
        *about_image,
        *((examine_huge_files(trusted_sizes(image)),) if image else ()),
        *examine_memory(machine, need, sgx=sgx.verdict == "pass"),
        *_port(wishes),
        examine_disk(machine, wishes.state),
        examine_clock(machine),
        examine_endorsements(machine, wishes.endorsements),
    )


def _need_of_model(wishes: Wishes) -> MemoryNeed | None:
    """Without an image: what the model of the catalog would need, so that one knows before one renders."""
    _, models = examine_model(wishes.catalog)
    return MemoryNeed(parts=need_of(models, {})) if models else None


def _port(wishes: Wishes) -> tuple[Finding, ...]:
    return (examine_port(wishes.host, wishes.port),) if wishes.port else ()
