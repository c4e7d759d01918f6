# SPDX-License-Identifier: Apache-2.0
"""Rendering a manifest: the same bytes for the same files, and other bytes for every edit that must be noticed."""

import hashlib
import os
import re
import tomllib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tiny_image import TinyImage, copy_tiny_image, elf, make_tiny_image

from adyton_enclave.config import parse_configuration
from adyton_host.manifest.interpreter import InstalledFile
from adyton_host.manifest.lint import lint
from adyton_host.manifest.render import MAX_FILES, plan, write
from adyton_protocol.errors import ConfigError


@pytest.fixture
def image(tmp_path: Path) -> TinyImage:
    """A checkout, a Python and a Gramine of a few small files."""
    return make_tiny_image(tmp_path / "here")


def rendered(image: TinyImage, **changes: object) -> dict[str, Any]:
    """The manifest as a document."""
    return tomllib.loads(plan(image.wanted(**changes)).manifest.decode())


def tree(directory: Path) -> dict[str, bytes | str]:
    """Content of every file, and target of every link."""
    return {
        path.relative_to(directory).as_posix(): path.readlink().name
        if path.is_symlink()
        else path.read_bytes()
        for path in directory.rglob("*")
        if path.is_symlink() or path.is_file()
    }


def test_two_renderings_are_byte_identical_wherever_and_whenever(image: TinyImage, tmp_path: Path) -> None:
    """Another directory, another umask, other times and modes: the same manifest and the same file tree."""
    other = copy_tiny_image(image, tmp_path / "somewhere" / "else")
    for number, path in enumerate(sorted(other.root.rglob("*"))):
        if path.is_file():
            path.chmod(0o600)
        os.utime(path, (1_000_000_000 + number, 1_100_000_000 - number))
    write(plan(image.wanted()), tmp_path / "one")
    before = os.umask(0o077)
    try:
        write(plan(other.wanted()), tmp_path / "two")
    finally:
        os.umask(before)
    assert tree(tmp_path / "one") == tree(tmp_path / "two")
    assert str(tmp_path).encode() not in (tmp_path / "one" / "adyton-enclave.manifest").read_bytes()


def test_rendering_again_replaces_what_was_there(image: TinyImage, tmp_path: Path) -> None:
    """Nothing of an earlier rendering stays in the tree; a signature over it goes too."""
    write(plan(image.wanted()), tmp_path / "out")
    (tmp_path / "out" / "adyton-enclave.sig").write_bytes(b"signature of another manifest")
    before = tree(tmp_path / "out")
    write(plan(image.wanted()), tmp_path / "out")
    assert tree(tmp_path / "out") == {
        name: data for name, data in before.items() if not name.endswith(".sig")
    }


def test_a_directory_with_other_files_is_left_alone(image: TinyImage, tmp_path: Path) -> None:
    """Rendering into somebody's home directory deletes nothing."""
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").write_text("years of work")
    with pytest.raises(ConfigError, match=r"thesis\.txt"):
        write(plan(image.wanted()), tmp_path / "out")
    assert (tmp_path / "out" / "thesis.txt").read_text() == "years of work"


def _append(*parts: str) -> Callable[[TinyImage], None]:
    def edit(image: TinyImage) -> None:
        path = image.root.joinpath(*parts)
        path.write_bytes(path.read_bytes() + b"\n# edited\n")

    return edit


def _replace(parts: str, old: str, new: str) -> Callable[[TinyImage], None]:
    def edit(image: TinyImage) -> None:
        path = image.root / parts
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new))

    return edit


def _add_module(image: TinyImage) -> None:
    _append("checkout/manifests/measured-files.txt")(image)
    path = image.manifests / "measured-files.txt"
    path.write_text(path.read_text().replace("# edited", "adyton_enclave/unlisted.py"))


def _upgrade(image: TinyImage) -> None:
    """A new version of a dependency, with the very same files."""
    (image.packages / "demo" / "VERSION").write_text("1.1")
    _replace("checkout/manifests/requirements-enclave.txt", "demo==1.0", "demo==1.1")(image)


MOVES: dict[str, Callable[[TinyImage], None]] = {
    "a module of the enclave": _append("checkout/enclave/adyton_enclave/__main__.py"),
    "a module of the protocol": _append("checkout/protocol/adyton_protocol/media.py"),
    "the list of modules": _add_module,
    "Python's library": _append("python/lib/python3.11/json/__init__.py"),
    "the interpreter": _append("python/bin/python3.11"),
    "a shared library of Python": _append("python/lib/libpython3.11.so.1.0"),
    "an extension module": _append("python/lib/python3.11/lib-dynload/_ssl.so"),
    "a dependency": _append("python/lib/python3.11/site-packages/demo/__init__.py"),
    "a native dependency": _append("python/lib/python3.11/site-packages/demo/_native.so"),
    "the version of a dependency": _upgrade,
    "a hash of a requirement": _replace("checkout/manifests/requirements-enclave.txt", "00" * 32, "11" * 32),
    "a library of the system": _append("system/libz.so.1"),
    "Gramine's C library": _append("gramine/runtime/glibc/libc.so.6"),
    "Gramine's library operating system": _append("gramine/libsysdb.so"),
    "the build of llama.cpp": _append("checkout/manifests/llama-build.toml"),
    "what is left out of the tree": _append("checkout/manifests/root.toml"),
    "an option of the template": _replace(
        "checkout/manifests/enclave.manifest.template", "isvsvn = 1", "isvsvn = 2"
    ),
}
STAYS: dict[str, Callable[[TinyImage], None]] = {
    "the host": _append("checkout/host/adyton_host/relay.py"),
    "the client": _append("checkout/client/adyton/client.py"),
    "a benchmark": _append("checkout/bench/sealing.py"),
    "the bytes of a model": _append("models/small.gguf"),
    "the adapter of a scorer, whose digest is pinned": _append("models/judge.toml"),
    "the simulator": _append("checkout/enclave/adyton_enclave/simulation.py"),
    "the probe for tuning": _append("checkout/enclave/adyton_enclave/probe.py"),
    "a module that is not listed": _append("checkout/enclave/adyton_enclave/unlisted.py"),
    "tests of Python": _append("python/lib/python3.11/test/test_os.py"),
    "tests of a dependency": _append("python/lib/python3.11/site-packages/demo/tests/test_demo.py"),
    "bytecode": _append("python/lib/python3.11/__pycache__/os.cpython-311.pyc"),
    "a package that nobody requires": _append("python/lib/python3.11/site-packages/other/__init__.py"),
    "the C library of the system": _append("system/libc.so.6"),
    "a part of Gramine's C library that nobody asks for": _append("gramine/runtime/glibc/libanl.so.1"),
    "a comment of the template": _replace(
        "checkout/manifests/enclave.manifest.template", "# A fork would start", "# A fork might start"
    ),
}


@pytest.mark.parametrize("edit", MOVES.values(), ids=MOVES)
def test_the_measurement_moves_with(edit: Callable[[TinyImage], None], image: TinyImage) -> None:
    """Whatever the enclave consists of is in the measurement: an edit gives another digest."""
    before = plan(image.wanted()).input_digest
    edit(image)
    assert plan(image.wanted()).input_digest != before


@pytest.mark.parametrize("edit", STAYS.values(), ids=STAYS)
def test_the_measurement_stays_with(edit: Callable[[TinyImage], None], image: TinyImage) -> None:
    """What the enclave does not contain is not in the measurement, so changing it upsets no client."""
    before = plan(image.wanted()).input_digest
    edit(image)
    assert plan(image.wanted()).input_digest == before


@pytest.mark.parametrize(
    "changes",
    [
        {"port": 8472},
        {"threads": 4},
        {"edmm": False},
        {"enclave_bytes": 1 << 33},
        {"overrides": {"engine": {"n_ctx_total": 1024}, "limits": {"max_queue": 7}}},
        {"overrides": {"engine": {"n_ctx_total": 1024}, "epoch_seconds": 600}},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_the_measurement_moves_with_every_wish(changes: dict[str, object], image: TinyImage) -> None:
    """The configuration of the enclave and its sizes are measured."""
    assert plan(image.wanted(**changes)).input_digest != plan(image.wanted()).input_digest


def test_what_is_rendered_passes_the_linter(image: TinyImage, tmp_path: Path) -> None:
    """Our own template breaks none of the rules; the models are waived because they are pinned."""
    write(plan(image.wanted()), tmp_path / "out")
    data = (tmp_path / "out" / "adyton-enclave.manifest").read_bytes()
    verdict = lint(data, name="m", directory=tmp_path / "out")
    assert verdict.refused == ()
    assert [each.found for each in verdict.waived] == [
        ("file:models/judge.gguf", "file:models/judge.toml", "file:models/small.gguf")
    ]


def test_the_simulated_variant_has_another_name_and_is_refused(image: TinyImage, tmp_path: Path) -> None:
    """What tests run under gramine-direct can neither be mistaken for an enclave nor pass as one."""
    made = plan(image.wanted(simulation_platform=image.root / "platform"))
    write(made, tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").glob("*.manifest")] == [
        "adyton-enclave-simulated.manifest"
    ]
    verdict = lint(made.manifest, name="m", directory=tmp_path / "out")
    assert {finding.rule for finding in verdict.refused} == {
        "no-remote-attestation",
        "simulated-attester",
        "simulator",
    }


def test_a_production_image_contains_neither_simulator_nor_probe(image: TinyImage) -> None:
    """They are not in the tree, so no configuration can switch them on."""
    assert not [name for name in plan(image.wanted()).root if re.search(r"simul|probe|platform", name)]


def test_every_file_of_the_tree_is_listed_with_its_digest(image: TinyImage, tmp_path: Path) -> None:
    """The list of trusted files is the file tree, no more and no less."""
    write(plan(image.wanted()), tmp_path / "out")
    listed = {each["uri"]: each["sha256"] for each in rendered(image)["sgx"]["trusted_files"]}
    assert listed == {
        f"file:root/{path.relative_to(tmp_path / 'out' / 'root').as_posix()}": hashlib.sha256(
            path.read_bytes()
        ).hexdigest()
        for path in (tmp_path / "out" / "root").rglob("*")
        if path.is_file()
    }


def test_the_tree_holds_what_is_needed_and_nothing_else(image: TinyImage) -> None:
    """Python without its tests, packages without theirs, and the libraries that somebody asks for."""
    home = "python/lib/python3.11"
    assert set(plan(image.wanted()).root) == {
        *("adyton/enclave.toml", "adyton/build/llama-build.toml", "adyton/build/measured-files.txt"),
        *("adyton/build/requirements-enclave.txt", "adyton/build/root.toml"),
        *("gramine/libsysdb.so", "lib/ld-linux-x86-64.so.2", "lib/libc.so.6", "lib/libm.so.6"),
        *(
            "python/bin/python3",
            "python/lib/libpython3.11.so.1.0",
            "python/lib/libz.so.1",
            "python/lib/libown.so",
        ),
        *("python/lib/libstdc++.so.6", "python/lib/libgcc_s.so.1"),
        *(f"{home}/os.py", f"{home}/json/__init__.py", f"{home}/lib-dynload/_ssl.so"),
        *(f"{home}/site-packages/demo/__init__.py", f"{home}/site-packages/demo/_native.so"),
        *(
            f"{home}/site-packages/adyton_enclave/__init__.py",
            f"{home}/site-packages/adyton_enclave/__main__.py",
        ),
        f"{home}/site-packages/adyton_protocol/media.py",
    }


def test_a_library_beside_the_file_that_asks_for_it_is_found_there(image: TinyImage) -> None:
    """What a package brings along is not taken from the system."""
    (image.packages / "demo" / "libown.so").write_bytes(elf())
    made = plan(image.wanted(interpreter=_with_own_library(image)))
    assert "python/lib/libown.so" not in made.root
    assert "python/lib/python3.11/site-packages/demo/libown.so" in made.root


def _with_own_library(image: TinyImage) -> object:
    found = image.interpreter()
    demo = found.distributions["demo"]
    own = InstalledFile("demo/libown.so", image.packages / "demo" / "libown.so", None)
    return replace(found, distributions={"demo": replace(demo, files=(*demo.files, own))})


def test_the_configuration_is_one_that_the_enclave_accepts(image: TinyImage) -> None:
    """It names Gramine's attester, paths inside the enclave, and a number of threads."""
    made = plan(image.wanted())
    configuration = parse_configuration(made.config.encode())
    assert configuration.attester == "gramine"
    assert configuration.engine.threads == 3
    assert [str(model.path) for model in configuration.models] == ["/models/small.gguf", "/models/judge.gguf"]
    assert {str(path) for path in made.models.values()} == {
        str(image.root / "models" / name) for name in ("small.gguf", "judge.gguf", "judge.toml")
    }


def test_threads_are_never_left_to_the_host(image: TinyImage) -> None:
    """0 would mean as many as the host claims to have; the configuration always says a number."""
    for overrides in ({}, {"engine": {"threads": 0}}):
        made = plan(image.wanted(overrides=overrides, threads=None))
        assert parse_configuration(made.config.encode()).engine.threads >= 1
    chosen = plan(image.wanted(overrides={"engine": {"threads": 7}}, threads=None))
    assert parse_configuration(chosen.config.encode()).engine.threads == 7


def test_models_of_the_same_name_are_kept_apart(image: TinyImage) -> None:
    """Two files called alike get two places; one file that two models share gets one."""
    small, judge = image.wanted().models
    twin = image.root / "more" / "small.gguf"
    twin.parent.mkdir()
    twin.write_bytes(small.path.read_bytes())
    made = plan(image.wanted(models=(small, replace(judge, path=twin))))
    assert made.models["small.gguf"] == small.path
    assert made.models["2-small.gguf"] == twin
    shared = plan(image.wanted(models=(small, replace(judge, path=small.path))))
    assert sorted(shared.models) == ["judge.toml", "small.gguf"]


def test_cpu_features_are_required_as_built_and_off_otherwise(image: TinyImage) -> None:
    """The host does not choose the instructions that compute answers."""
    for built, expected in (
        ({"AVX"}, ("required", "disabled", "disabled")),
        ({"AVX", "AVX512_VNNI"}, ("required", "required", "disabled")),
        ({"AVX", "AVX512", "AMX_INT8"}, ("required", "required", "required")),
    ):
        features = rendered(image, interpreter=replace(image.interpreter(), cpu=frozenset(built)))["sgx"][
            "cpu_features"
        ]
        assert (features["avx"], features["avx512"], features["amx"]) == expected
        assert features["mpx"] == features["pkru"] == "disabled"


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda image: (image.packages / "demo" / "VERSION").write_text("1.2"), "1.0 is pinned"),
        (lambda image: (image.libraries / "libz.so.1").unlink(), "libz.so.1"),
        (lambda image: (image.root / "gramine/runtime/glibc/libm.so.6").unlink(), "libm.so.6, which Gramine"),
        (
            lambda image: (image.root / "checkout/enclave/adyton_enclave/__main__.py").unlink(),
            "which is not there",
        ),
        (lambda image: (image.manifests / "root.toml").write_text("version = 1\n"), "not what it should be"),
        (lambda image: (image.manifests / "root.toml").unlink(), "cannot read"),
        (
            lambda image: (image.libraries / "libz.so.1").write_bytes(b"\x7fELF\x02\x01\x01 damaged"),
            "damaged",
        ),
        (lambda image: (image.root / "models/small.gguf").write_bytes(b"not a model"), "not a GGUF file"),
    ],
    ids=["version", "library", "c-library", "module", "rules", "no-rules", "elf", "model"],
)
def test_what_does_not_fit_together_is_not_rendered(
    damage: Callable[[TinyImage], object], message: str, image: TinyImage
) -> None:
    """A missing or wrong part is an error that names it, never a manifest with a hole."""
    damage(image)
    with pytest.raises(ConfigError, match=message):
        plan(image.wanted())


def test_a_package_that_changed_since_it_was_installed_is_not_measured(image: TinyImage) -> None:
    """Pip checked hashes when it installed; what somebody edited afterwards is not that package."""
    before = image.wanted()
    (image.packages / "demo" / "__init__.py").write_text("# edited\n")
    with pytest.raises(ConfigError, match="is not what was installed"):
        plan(before)


def test_the_list_of_measured_files_cannot_lead_out_of_the_packages(image: TinyImage) -> None:
    """A list that names something else than modules of enclave and protocol is refused."""
    for name in ("adyton_host/relay.py", "adyton_enclave/../../../models/small.gguf", "/etc/passwd"):
        (image.manifests / "measured-files.txt").write_text(f"{name}\n")
        with pytest.raises(ConfigError, match="which is not there"):
            plan(image.wanted())


def test_too_many_files_are_refused(image: TinyImage) -> None:
    """Beyond a few thousand files starting takes seconds; the limit says so before anybody waits."""
    for number in range(MAX_FILES):
        (image.root / "python" / "lib" / "python3.11" / f"module_{number}.py").touch()
    with pytest.raises(ConfigError, match="more than 4000"):
        plan(image.wanted())


def test_the_template_and_the_program_agree_on_what_is_filled_in(image: TinyImage) -> None:
    """A placeholder that nobody fills, or a value for which there is none, is an error."""
    path = image.manifests / "enclave.manifest.template"
    text = path.read_text()
    for changed in (text.replace("{{ max_threads }}", "4"), text.replace("isvsvn = 1", "isvsvn = {{ svn }}")):
        path.write_text(changed)
        with pytest.raises(ConfigError, match="differ in"):
            plan(image.wanted())


def test_without_gramine_a_manifest_can_be_compared_and_not_signed(image: TinyImage, tmp_path: Path) -> None:
    """It lacks the library OS and the C library, and the linter says that this is not enough."""
    made = plan(image.wanted(gramine=None))
    write(made, tmp_path / "out")
    assert made.input_digest == plan(image.wanted(gramine=None)).input_digest
    verdict = lint(made.manifest, name="m", directory=tmp_path / "out")
    assert {finding.rule for finding in verdict.refused} == {"library-os-without-hash", "mount-without-files"}
