# SPDX-License-Identifier: Apache-2.0
"""Install or renew a simulated platform: ``python -m adyton_attestation.simulation.install DIR [--measure ...]``.

Idempotent: keys are made once, collateral is renewed when it is a week old, the policy is rewritten whenever
``--measure`` names the source to accept. Prints what holds now, as text or as JSON.
"""

import argparse
import fcntl
import json
import sys
import time
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Final

from adyton_attestation.checks import CheckName
from adyton_attestation.policy import (
    DAY_S,
    AppraisalPolicy,
    EnrolledPlatform,
    Identity,
    Relaxation,
    TcbPolicy,
)
from adyton_attestation.simulation.collateral import EVALUATION_NUMBER
from adyton_attestation.simulation.installation import Installation, ensure_installation, write_file
from adyton_attestation.times import format_time
from adyton_protocol.digests import DIGEST_PATTERN, Digest, as_digest, sha256_hex
from adyton_protocol.errors import ConfigError, ProtocolError
from adyton_protocol.measurement import UNMEASURED, simulated_mrenclave
from adyton_protocol.model_identity import CacheProfile, SamplingDefaults, ScorerParts, model_identity

MAX_CONFIG_BYTES: Final = 1 << 20
PACKAGES: Final = ("enclave/adyton_enclave", "protocol/adyton_protocol")

EXIT_UNUSABLE: Final = 2


def measured_files(directories: Sequence[Path]) -> dict[str, bytes]:
    """Read the files to measure.

    Args:
        directories: Package directories, or one checkout that holds ``enclave/`` and ``protocol/``.

    Returns:
        Contents by package-relative POSIX path.

    Raises:
        ConfigError: A directory is neither, or cannot be read.
    """
    files: dict[str, bytes] = {}
    for directory in directories:
        for package in _packages(directory.resolve()):
            for path in sorted(package.rglob("*.py")):
                name = path.relative_to(package.parent).as_posix()
                if name not in UNMEASURED:
                    files[name] = path.read_bytes()
    return files


def _packages(directory: Path) -> tuple[Path, ...]:
    if (directory / "__init__.py").is_file():
        return (directory,)
    packages = tuple(directory / name for name in PACKAGES)
    if all((package / "__init__.py").is_file() for package in packages):
        return packages
    raise ConfigError(f"{directory} is neither a package nor a checkout with {' and '.join(PACKAGES)}")


def simulated_policy(
    installation: Installation,
    mr_enclave: bytes,
    *,
    models: Sequence[tuple[str, Digest]] = (),
    configurations: Sequence[Digest] = (),
) -> AppraisalPolicy:
    """Return the policy for one simulated installation: exactly this measurement on exactly this platform.

    Args:
        installation: The installation; its platform is enrolled.
        mr_enclave: The measurement, 32 bytes.
        models: Accepted models; none means that models are not checked, by a relaxation that says so.
        configurations: Accepted configuration digests; none means the same for the configuration.
    """
    expires_s = installation.endorsements.tcb_info.issued_s + 365 * DAY_S
    unstated = [
        (CheckName.CONFIGURATION, configurations, "the installation step was given no configuration digest"),
        (CheckName.MODELS, models, "the installation step was given no model identity"),
    ]
    by_name: dict[str, set[Digest]] = {}
    for name, identity in models:
        by_name.setdefault(name, set()).add(identity)
    return AppraisalPolicy(
        name="simulated installation",
        identity=Identity(mr_enclaves=frozenset({mr_enclave})),
        tcb=TcbPolicy(statuses=frozenset({"UpToDate"}), min_evaluation_number=EVALUATION_NUMBER),
        platforms=(
            EnrolledPlatform(
                ppid=installation.pki.platform.ppid,
                # As its PCK certificate says, like one of the Platform CA.
                platform_instance_id=installation.pki.platform.ppid,
                custodian="whoever runs this simulation",
                place="nowhere: the platform is simulated",
            ),
        ),
        configurations=frozenset(configurations),
        models=tuple(sorted((name, frozenset(identities)) for name, identities in by_name.items())),
        relaxations=tuple(
            Relaxation(check=check, reason=reason, expires_s=expires_s)
            for check, stated, reason in unstated
            if not stated
        ),
    )


def install(arguments: argparse.Namespace, now_s: int) -> dict[str, object]:
    """Carry out one installation step; returns what holds now.

    Raises:
        ConfigError: The directory, a measured directory or an argument is unusable.
    """
    directory: Path = arguments.directory
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    with (directory / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        installation = ensure_installation(directory, now_s)
        state: dict[str, object] = {
            "directory": str(directory),
            "trust_domain": "simulated",
            "created": installation.created,
            "renewed": installation.renewed,
            "endorsements_expire_at": format_time(installation.endorsements.tcb_info.next_update_s),
            "fmspc": installation.pki.platform.fmspc.hex(),
            "ppid": installation.pki.platform.ppid.hex(),
        }
        if arguments.measure:
            mr_enclave = simulated_mrenclave(measured_files(arguments.measure))
            models, configurations = list(arguments.model), list(arguments.configuration)
            if arguments.enclave_config is not None:
                configuration, stated = stated_by(arguments.enclave_config)
                models += stated
                configurations.append(configuration)
            policy = simulated_policy(installation, mr_enclave, models=models, configurations=configurations)
            write_file(directory / "policy.toml", policy.to_toml().encode())
            state |= {"mr_enclave": mr_enclave.hex(), "policy_digest": policy.digest()}
    return state


def stated_by(path: Path) -> tuple[Digest, list[tuple[str, Digest]]]:
    """Return what an enclave's configuration file amounts to: its digest, and the identity of each model in it.

    The file is the policy writer's own. Values that it leaves out are the enclave's defaults.

    Raises:
        ConfigError: It cannot be read or is no such configuration.
    """
    data = path.read_bytes()[:MAX_CONFIG_BYTES]
    try:
        document = tomllib.loads(data.decode())
        engine = document.get("engine", {})
        cache = CacheProfile(**{key: engine[key] for key in _names(CacheProfile) if key in engine})
        models = [
            (
                str(model["name"]),
                model_identity(
                    content=as_digest(str(model["content"])),
                    n_ctx=int(model["n_ctx"]),
                    sampling=SamplingDefaults(
                        **{
                            k: v
                            for k, v in model.get("sampling", {}).items()
                            if k in _names(SamplingDefaults)
                        }
                    ),
                    cache=cache,
                    scorer=_scorer(model),
                ),
            )
            for model in document["model"]
        ]
    except (ValueError, TypeError, KeyError, AttributeError, ProtocolError) as error:
        raise ConfigError(f"{path} is not an enclave's configuration") from error
    return sha256_hex(data), models


def _scorer(model: Mapping[str, object]) -> ScorerParts | None:
    """What the configuration says of a scorer beside its model's files."""
    if model.get("role") != "scorer":
        return None
    head = as_digest(str(model["head_digest"])) if "head" in model else None
    return ScorerParts(adapter=as_digest(str(model["adapter_digest"])), head=head)


def _names(kind: type[SamplingDefaults | CacheProfile]) -> frozenset[str]:
    return frozenset(member.name for member in fields(kind))


def _model(text: str) -> tuple[str, Digest]:
    name, separator, digest = text.partition("=")
    if not name or not separator:
        raise argparse.ArgumentTypeError("write a model as NAME=sha256:<64 hexadecimal digits>")
    return name, _digest(digest)


def _digest(text: str) -> Digest:
    if DIGEST_PATTERN.fullmatch(text) is None:
        raise argparse.ArgumentTypeError("write a digest as sha256:<64 lower-case hexadecimal digits>")
    return Digest(text)


def parser() -> argparse.ArgumentParser:
    """Return the command line."""
    result = argparse.ArgumentParser(
        prog="python -m adyton_attestation.simulation.install",
        description="Make or renew a simulated SGX platform. It protects nothing.",
    )
    result.add_argument("directory", type=Path, metavar="DIR", help="where the installation lives")
    result.add_argument(
        "--measure",
        type=Path,
        nargs="+",
        default=[],
        metavar="PATH",
        help="packages (or one checkout) whose files the policy shall accept; without it the policy stays as it is",
    )
    result.add_argument(
        "--model",
        type=_model,
        action="append",
        default=[],
        metavar="NAME=DIGEST",
        help="a model that the policy shall accept; may be repeated",
    )
    result.add_argument(
        "--configuration",
        type=_digest,
        action="append",
        default=[],
        metavar="DIGEST",
        help="a configuration digest that the policy shall accept; may be repeated",
    )
    result.add_argument(
        "--enclave-config",
        type=Path,
        metavar="FILE",
        help="an enclave.toml whose digest and whose models the policy shall accept",
    )
    result.add_argument("--json", action="store_true", help="print JSON")
    return result


def main(argv: Sequence[str] | None = None) -> int:
    """Run the installation step; returns the exit status (0 done, 2 unusable input)."""
    arguments = parser().parse_args(argv)
    now_s = int(time.time())  # noqa: TID251 - the edge: the clock is read once, here
    try:
        state = install(arguments, now_s)
    except (ConfigError, OSError) as error:
        sys.stderr.write(f"error: {error}\n")
        return EXIT_UNUSABLE
    if arguments.json:
        sys.stdout.write(json.dumps(state, indent=2) + "\n")
    else:
        sys.stdout.write("SIMULATED platform: protects nothing, proves nothing\n")
        for name, value in state.items():
            sys.stdout.write(f"  {name}: {value}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
