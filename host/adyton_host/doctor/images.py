# SPDX-License-Identifier: Apache-2.0
"""Is there an enclave image, is it signed, and is it still what was signed?"""

import hashlib
import os
import socket
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from adyton_host.catalog import CatalogModel
from adyton_host.doctor.finding import Finding, failed, passed, warned
from adyton_host.doctor.memory import RUNTIME_BYTES, MemoryNeed
from adyton_host.image import EnclaveImage, check_configuration, load_image, trusted_sizes
from adyton_host.manifest.budget import make_budget
from adyton_host.manifest.lint import lint
from adyton_protocol.errors import ConfigError

_RENDER: Final = (
    "adyton-host manifest render --output {path}, then adyton-host manifest sign {path} --key KEY.pem"
)
_SHOWN: Final = 3
_LOOPBACK: Final = "127.0.0.1"


def examine_image(directory: Path) -> tuple[tuple[Finding, ...], EnclaveImage | None]:
    """Look at the image; the image itself where it can be read."""
    try:
        image = load_image(directory, signed=True)
    except ConfigError as error:
        what, _, _ = str(error).partition("; ")
        return (failed("image", what, _RENDER.format(path=directory)),), None
    served = ", ".join(model.name for model in image.models) or "nothing"
    return (
        passed("image", f"{image.application} serves {served} on port {image.port}"),
        _attester(image),
        _signature(image),
        _configuration(image),
        _lint(image),
        _measured_files(image),
        _model_files(image),
        _enclave_port(image),
    ), image


def memory_need(image: EnclaveImage) -> MemoryNeed:
    """What an image will occupy, as it was reckoned when it was rendered."""
    return MemoryNeed(
        parts=need_of(image.models, tomllib.loads(image.config)), committed_bytes=image.committed_bytes
    )


def need_of(models: tuple[CatalogModel, ...], config: Mapping[str, object]) -> Mapping[str, int]:
    """Bytes by what they are for; without the KV cache where a file is sealed and does not tell its shape."""
    engine = config.get("engine")
    threads = {"threads": len(os.sched_getaffinity(0)), **(engine if isinstance(engine, Mapping) else {})}
    try:
        return make_budget(models, {**config, "engine": threads}).parts
    except ConfigError:
        files = [path for model in models for path in model.files if path.is_file()]
        weights = sum(path.stat().st_size for path in files)
        return {"weights (KV cache not known)": weights, "runtime": RUNTIME_BYTES}


def _attester(image: EnclaveImage) -> Finding:
    if image.attester == "gramine":
        return passed("attester", "asks the hardware")
    return failed(
        "attester",
        f"the image's configuration has attester = {image.attester!r}: it would not ask the hardware",
        "render it for the hardware (without --simulated)",
    )


def _signature(image: EnclaveImage) -> Finding:
    if image.mrenclave is None:
        return failed(
            "signature",
            f"{image.sigstruct} is no SIGSTRUCT",
            f"adyton-host manifest sign {image.directory} --key KEY.pem",
        )
    return passed("signature", f"MRENCLAVE {image.mrenclave}")


def _configuration(image: EnclaveImage) -> Finding:
    try:
        check_configuration(image)
    except ConfigError as error:
        return failed("configuration", str(error), _RENDER.format(path=image.directory))
    return passed("configuration", f"{image.config_path}, as it was measured")


def _lint(image: EnclaveImage) -> Finding:
    """The linter's verdict on the very manifest that was signed; `sign` refuses as well, but others can sign."""
    name = "lint"
    try:
        data, directory = image.sgx_manifest.read_bytes(), image.directory
        verdict = lint(data, name=image.sgx_manifest.name, directory=directory)
    except (ConfigError, OSError) as error:
        return failed(name, str(error), _RENDER.format(path=image.directory))
    if not verdict.passed:
        broken = ", ".join(finding.rule for finding in verdict.refused)
        return failed(
            name, f"unfit for production: {broken}", f"adyton-host manifest lint {image.directory} says why"
        )
    waived = "".join(f", {each.rule} waived: {each.reason}" for each in verdict.waived)
    return passed(name, f"{verdict.rules} rules hold{waived}")


def _measured_files(image: EnclaveImage) -> Finding:
    """Each of them, hashed: a file that differs is refused by Gramine too, but with a name that helps nobody."""
    name = "measured files"
    changed, missing = [], []
    for uri, size in trusted_sizes(image).items():
        if size < 0:
            missing.append(uri)
        elif (pinned := image.trusted[uri]) and pinned != _sha256(image.directory / uri):
            changed.append(uri)
    if missing or changed:
        what = [f"{uri} is missing" for uri in missing] + [f"{uri} was changed" for uri in changed]
        more = f", and {len(what) - _SHOWN} more" if len(what) > _SHOWN else ""
        return failed(name, "; ".join(what[:_SHOWN]) + more, _RENDER.format(path=image.directory))
    return passed(name, f"{len(image.trusted)}, each as it was measured")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _model_files(image: EnclaveImage) -> Finding:
    name = "model files"
    if not image.model_files:
        return warned(name, "the image may read no weights", "render it with a model")
    missing = next((path for path in image.model_files if not path.is_file()), None)
    if missing is not None:
        return failed(
            name, f"{missing} is missing", f"copy or link it to {missing}; the enclave checks its digest"
        )
    return passed(name, ", ".join(path.name for path in image.model_files))


def _enclave_port(image: EnclaveImage) -> Finding:
    name = "enclave port"
    try:
        with socket.create_server((_LOOPBACK, image.port)):
            return passed(name, f"{image.port} is free on loopback")
    except OSError as error:
        return failed(
            name,
            f"{image.port}, which the image listens on, cannot be had: {os.strerror(error.errno or 0)}",
            f"end what listens there (ss -ltnp 'sport = :{image.port}'), or render with another --port",
        )
