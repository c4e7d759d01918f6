# SPDX-License-Identifier: Apache-2.0
"""Renders the manifest of an enclave and lays out its file tree.

Rendering has two steps. :func:`plan` decides everything and writes nothing: which files, under which paths, with which
digests, and the bytes of the manifest. :func:`write` puts a plan into a directory::

    adyton-enclave.manifest     what Gramine reads
    root/                       the measured files
    models/                     links to the model files, which are not measured: the configuration pins them

The bytes depend on what the files hold and on nothing else: not on where they lie, nor on their times and modes.
"""

import hashlib
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from adyton_host.catalog import Attachment, CatalogModel
from adyton_host.enclave_config import EnclaveConfig
from adyton_host.manifest import template
from adyton_host.manifest.budget import STACK_BYTES, Budget, format_size, make_budget
from adyton_host.manifest.gramine import GramineFiles
from adyton_host.manifest.interpreter import Interpreter
from adyton_host.manifest.libraries import SYSTEM_DIRECTORIES, with_libraries
from adyton_host.manifest.measured_root import LIBOS, PROGRAM, RUNTIME, Source, collect, read_rules
from adyton_protocol.errors import ConfigError

NAME: Final = "adyton-enclave"
SIMULATED_NAME: Final = "adyton-enclave-simulated"
ROOT: Final = "root"
MODELS: Final = "models"
PLATFORM: Final = "adyton/platform"
"""Of the simulated variant: what stands in for hardware, keys included."""
SIMULATOR: Final = "adyton_enclave/simulation.py"

MAX_FILES: Final = 4000
"""Gramine keeps trusted files in a list that it walks at every look-up; beyond this, starting takes seconds more."""

_READ_ONLY: Final = 0o444
_EXECUTABLE: Final = 0o555


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What shall be rendered.

    Attributes:
        manifests: The directory of the template and the lists, in a checkout.
        interpreter: The Python that is measured, with its packages.
        gramine: Where Gramine's own files are; without it the manifest can be compared and linted, not run.
        models: To be served, with absolute paths on this machine.
        overrides: The operator's part of the enclave's configuration.
        port: Loopback port of the enclave.
        threads: Compute threads; None takes those of ``overrides``, or one less than this machine has processors.
        edmm: Add memory when it is needed.
        enclave_bytes: Size of the enclave; None for an estimate.
        simulation_platform: Directory of a simulated platform: render the variant for tests, which no linter passes.
        directories: Where shared libraries are looked for.
    """

    manifests: Path
    interpreter: Interpreter
    gramine: GramineFiles | None
    models: tuple[CatalogModel, ...]
    overrides: Mapping[str, object]
    port: int
    threads: int | None = None
    edmm: bool = True
    enclave_bytes: int | None = None
    simulation_platform: Path | None = None
    directories: Sequence[Path] = SYSTEM_DIRECTORIES


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A rendered enclave that is not written yet.

    Attributes:
        name: Of the manifest, without suffix.
        manifest: Its bytes.
        config: The text of ``enclave.toml``.
        root: Measured files by path in the tree.
        root_bytes: Their size together.
        models: Model files on this machine, by name in the enclave's ``/models``.
        budget: Sizes.
    """

    name: str
    manifest: bytes
    config: str
    root: Mapping[str, Source]
    root_bytes: int
    models: Mapping[str, Path]
    budget: Budget

    @property
    def input_digest(self) -> str:
        """See :func:`adyton_host.manifest.template.input_digest`."""
        return template.input_digest(self.manifest)


def configuration(wanted: Wanted) -> str:
    """The text of the enclave's ``enclave.toml``."""
    simulated = wanted.simulation_platform is not None
    return EnclaveConfig(
        simulation_platform=Path("/", PLATFORM) if simulated else None,
        models=_inside(wanted.models)[0],
        overrides=_with_threads(wanted),
    ).to_toml(port=wanted.port)


def plan(wanted: Wanted) -> Plan:
    """Decide everything.

    Raises:
        ConfigError: Something is missing, does not fit together, or is too much.
    """
    config = configuration(wanted)
    links = _inside(wanted.models)[1]
    simulated = wanted.simulation_platform is not None
    files = collect(
        wanted.manifests,
        wanted.interpreter,
        wanted.gramine,
        config.encode(),
        extra_modules=(SIMULATOR,) if simulated else (),
    )
    if wanted.simulation_platform is not None:
        files |= _platform(wanted.simulation_platform)
    root = with_libraries(
        files,
        gramine=wanted.gramine,
        directories=(wanted.interpreter.library_dir, *wanted.directories),
        also=read_rules(wanted.manifests).also,
    )
    if len(root) > MAX_FILES:
        raise ConfigError(
            f"{len(root)} measured files are more than {MAX_FILES}; leave something out in root.toml"
        )
    digests, root_bytes = _digests(root)
    budget = make_budget(wanted.models, _with_threads(wanted), enclave_bytes=wanted.enclave_bytes)
    manifest = template.fill(
        _read_template(wanted.manifests),
        {
            "libos_sha256": f"sha256 = {template.text(digests[LIBOS])}" if LIBOS in digests else "",
            "model_mounts": template.lines(
                template.inline({"path": f"/{MODELS}/{name}", "uri": f"file:{MODELS}/{name}"})
                for name in sorted(links)
            ),
            "allowed_files": template.lines(template.text(f"file:{MODELS}/{name}") for name in sorted(links)),
            "trusted_files": template.lines(
                template.inline({"uri": f"file:{ROOT}/{name}", "sha256": digests[name]})
                for name in sorted(digests)
            ),
            "stack_size": format_size(STACK_BYTES),
            "fds_limit": str(budget.fds),
            "remote_attestation": "none" if simulated else "dcap",
            "edmm_enable": "true" if wanted.edmm else "false",
            "enclave_size": format_size(budget.enclave_bytes),
            "max_threads": str(budget.threads),
            **_cpu_features(wanted.interpreter.cpu),
        },
    )
    return Plan(
        name=SIMULATED_NAME if simulated else NAME,
        manifest=manifest,
        config=config,
        root=root,
        root_bytes=root_bytes,
        models=links,
        budget=budget,
    )


def write(made: Plan, directory: Path) -> None:
    """Put a plan into ``directory``, in place of an earlier one.

    Raises:
        ConfigError: The directory holds something else, or cannot be written.
    """
    known = {
        ROOT,
        MODELS,
        *(f"{NAME}{kind}" for kind in _SUFFIXES),
        *(f"{SIMULATED_NAME}{kind}" for kind in _SUFFIXES),
    }
    try:
        directory.mkdir(parents=True, exist_ok=True)
        foreign = sorted(path.name for path in directory.iterdir() if path.name not in known)
        if foreign:
            raise ConfigError(f"{directory} holds other files, such as {foreign[0]}; name an empty directory")
        for name in known:
            _remove(directory / name)
        for name, source in made.root.items():
            _lay_out(
                directory / ROOT / name,
                source,
                executable=name == PROGRAM or name.startswith(f"{RUNTIME}/ld-"),
            )
        (directory / MODELS).mkdir()
        for name, path in made.models.items():
            (directory / MODELS / name).symlink_to(path)
        (directory / f"{made.name}.manifest").write_bytes(made.manifest)
    except OSError as error:
        raise ConfigError(f"cannot write to {directory}: {error.strerror}") from error


_SUFFIXES: Final = (".manifest", ".manifest.sgx", ".sig")


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _lay_out(path: Path, source: Source, *, executable: bool) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(source, Path):
        shutil.copyfile(source, path)
    else:
        path.write_bytes(source)
    path.chmod(_EXECUTABLE if executable else _READ_ONLY)


def _read_template(manifests: Path) -> str:
    path = manifests / template.TEMPLATE
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from error


def _digests(root: Mapping[str, Source]) -> tuple[dict[str, str], int]:
    """SHA-256 of each file, and the size of all."""
    digests: dict[str, str] = {}
    total = 0
    for name, source in root.items():
        try:
            data = source.read_bytes() if isinstance(source, Path) else source
        except OSError as error:
            raise ConfigError(f"cannot read {source!r}: {error.strerror}") from error
        digests[name] = hashlib.sha256(data).hexdigest()
        total += len(data)
    return digests, total


def _platform(directory: Path) -> dict[str, Source]:
    files: dict[str, Source] = {
        f"{PLATFORM}/{path.name}": path for path in directory.iterdir() if path.is_file()
    }
    if not files:
        raise ConfigError(f"{directory} holds no simulated platform")
    return files


def _with_threads(wanted: Wanted) -> dict[str, object]:
    """SECURITY: 0 would mean as many threads as the host claims to have processors for."""
    engine = wanted.overrides.get("engine", {})
    if not isinstance(engine, Mapping):
        raise ConfigError("[engine] of the enclave's configuration is not a table")
    here = max(1, len(os.sched_getaffinity(0)) - 1)
    threads = wanted.threads or engine.get("threads") or here
    return {**wanted.overrides, "engine": {**engine, "threads": threads}}


def _inside(models: Sequence[CatalogModel]) -> tuple[tuple[CatalogModel, ...], dict[str, Path]]:
    """The models with their paths in the enclave, and the files behind these by name."""
    links: dict[str, Path] = {}

    def enter(path: Path) -> Path:
        taken = next((name for name, known in links.items() if known == path), None)
        number, name = 1, path.name
        while taken is None and name in links:
            number += 1
            name = f"{number}-{path.name}"
        links[taken or name] = path
        return Path("/", MODELS, taken or name)

    def attach(found: Attachment | None) -> Attachment | None:
        return None if found is None else Attachment(enter(found.path), found.digest)

    entered = tuple(
        replace(
            model,
            path=enter(model.path),
            more_paths=tuple(map(enter, model.more_paths)),
            adapter=attach(model.adapter),
            head=attach(model.head),
        )
        for model in models
    )
    return entered, links


def _cpu_features(built_for: frozenset[str]) -> dict[str, str]:
    """What llama.cpp was compiled for is required, the rest is off."""
    if "AVX" not in built_for:
        raise ConfigError(
            "llama.cpp was compiled without AVX, so it was not compiled for a processor with SGX"
        )
    avx512 = any(name.startswith("AVX512") for name in built_for)
    amx = any(name.startswith("AMX") for name in built_for)
    return {
        "avx": "required",
        "avx512": "required" if avx512 else "disabled",
        "amx": "required" if amx else "disabled",
    }
