# SPDX-License-Identifier: Apache-2.0
"""`seal` and `release-key`: a model that only an appraised enclave can read."""

import argparse
import json
import os
import sys
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from adyton.simulation import Simulation, default_directory
from adyton.terminal import announce_simulation
from adyton_attestation.simulation import SimulatedAttestationWarning
from adyton_models.catalog import (
    Catalog,
    Entry,
    identity_of,
    read_catalog,
    sha256_of,
    with_entry,
    write_catalog,
)
from adyton_models.commands.arguments import add_catalog, new_parser, positive, up_command
from adyton_models.key_file import KeyFile, SealedUse, read_key_file, write_key_file
from adyton_models.key_release import RELEASED_MODEL_CHECK, Destination, release_key
from adyton_models.model_files import read_files
from adyton_models.progress import ProgressBar
from adyton_models.sealing import Sealing, seal_model
from adyton_protocol.digests import Digest, as_digest
from adyton_protocol.errors import (
    AdytonError,
    AppraisalError,
    AttestationError,
    ConfigError,
    LocalProtocolError,
)
from adyton_protocol.sealed_model import DEFAULT_ALGORITHM, KEY_BYTES, Algorithm, ModelKey

_DEFAULT_URL: Final = "http://127.0.0.1:8470"
_REFUSED: Final = 1

_SEAL: Final = """\
Encrypt a model of the catalog, so that only an enclave to which you release its key can read it. The sealed
file may lie anywhere: on the appliance's disk, in a backup. A split model becomes one sealed file.

The key goes into a file of its own (mode 0600). Keep it away from the machine that serves: whoever has both
has the model, and whoever loses it has lost the sealed file. Nothing is ever overwritten.

Raise --model-version with each release: an enclave refuses a sealed file that is older than its catalog says,
so that nobody can quietly bring back an old one."""
_SEAL_EXAMPLES: Final = """\
  adyton-models seal mine --key-out mine.key --out mine.sealed --register mine

a new version, under the same key; --register has put the sealed file in the place of the clear one:
  adyton-models add mine-2.gguf --name mine
  adyton-models seal mine --key mine.key --out mine-2.sealed --model-version 2 --register mine

then, on the machine that serves, and on the one that has the key:
  adyton-host up --simulate --model mine
  adyton-models release-key mine --key mine.key --simulated"""

_RELEASE: Final = """\
Send a model's key to an enclave that waits for it. Its evidence is appraised first, as by any client; on top,
the attested keyset must name the model with the identity for which the key was made. Only then does the key
leave this machine, sealed to the attested keys. It is never written anywhere else.

An enclave forgets the key with its process: after each restart the key has to be released again."""
_RELEASE_EXAMPLES: Final = """\
  adyton-models release-key mine --key mine.key --policy policy.toml --url https://appliance.example
  adyton-models release-key mine --key mine.key --simulated

Another context length or sampling default gives a model another identity. If that is what you want, say so with
--identity; `adyton-models identity NAME` prints it. Exit status 1 when the enclave was not accepted or refused."""


def add_parsers(commands: Any) -> None:
    """Add both subcommands."""
    sealing = new_parser(commands, "seal", "encrypt a model of the catalog", _SEAL, _SEAL_EXAMPLES)
    add = sealing.add_argument
    add("model", metavar="NAME", help="of the catalog")
    keys = sealing.add_mutually_exclusive_group(required=True)
    keys.add_argument("--key-out", type=Path, metavar="KEYFILE", help="make a new key and write it here")
    keys.add_argument("--key", type=Path, metavar="KEYFILE", help="use a key that was made before")
    add("--out", type=Path, required=True, metavar="FILE", help="the sealed file")
    add("--model-version", type=positive, default=1, metavar="N", help="your counter (default: %(default)s)")
    add(
        "--algorithm",
        choices=[algorithm.name.lower().replace("_", "-") for algorithm in reversed(Algorithm)],
        default=DEFAULT_ALGORITHM.name.lower().replace("_", "-"),
        help="cipher (default: %(default)s, the faster one wherever there is SGX)",
    )
    add(
        "--register",
        metavar="NAME",
        help="list the sealed file in the catalog under this name, which may be the model's own",
    )
    add_catalog(sealing)
    add("--json", action="store_true", help="print JSON")
    sealing.set_defaults(run=run_seal)

    releasing = new_parser(
        commands, "release-key", "send a model's key to an appraised enclave", _RELEASE, _RELEASE_EXAMPLES
    )
    add = releasing.add_argument
    add("model", metavar="NAME", help="by which the appliance serves the model")
    add("--key", type=Path, required=True, metavar="KEYFILE", help="written by `adyton-models seal`")
    add("--url", default=_DEFAULT_URL, help="address of the appliance (default: %(default)s)")
    add("--identity", metavar="DIGEST", help="another identity of the model than the key file names")
    add("--api-key-file", type=Path, metavar="FILE", help="file with the key that the host asks for")
    trust = releasing.add_argument_group("trust (choose one; there is no default)")
    trust.add_argument("--policy", type=Path, metavar="FILE", help="appraisal policy of a real appliance")
    trust.add_argument(
        "--simulated", action="store_true", help="a simulated appliance, which protects nothing"
    )
    trust.add_argument(
        "--simulation-dir", type=Path, metavar="DIR", help=f"with --simulated (default {default_directory()})"
    )
    add("--json", action="store_true", help="print JSON")
    releasing.set_defaults(run=run_release)


def run_seal(arguments: argparse.Namespace) -> int:
    """Seal a model of the catalog."""
    catalog = read_catalog(arguments.catalog)
    entry = catalog.entry(arguments.model)
    if entry.key_id:
        raise ConfigError(
            f"the model {entry.name!r} is sealed already; list the clear file to seal it anew: "
            f"adyton-models add FILE.gguf --name {entry.name}"
        )
    _check_places(arguments, catalog)
    file = (
        KeyFile(key=ModelKey(os.urandom(KEY_BYTES)))
        if arguments.key is None
        else read_key_file(arguments.key)
    )
    served_as = arguments.register or entry.name
    before = file.used_for(served_as)
    if arguments.register and before is not None and before.model_version > arguments.model_version:
        raise ConfigError(
            f"the key sealed version {before.model_version} of {served_as!r} before: say --model-version "
            f"{before.model_version + 1}, or more"
        )
    bar = ProgressBar("seal")
    read = read_files(arguments.catalog.parent / entry.file, lambda share, note: bar.update(share / 2, note))
    if read.content.digest != entry.content:
        raise ConfigError(
            f"{entry.file} is not what the catalog says; look at: adyton-models identity {entry.name}"
        )
    use = SealedUse(
        name=served_as,
        content=read.content.digest,
        identity=identity_of(entry.content, entry.n_ctx, entry.sampling, scorer=entry.scorer_parts),
        model_version=arguments.model_version,
    )
    file = file.with_use(use)
    # First the key: a sealed file without one is lost.
    write_key_file(arguments.key_out or arguments.key, file, new=arguments.key is None)
    header = seal_model(
        Sealing(
            files=read.paths,
            content=read.content.digest,
            model_version=arguments.model_version,
            algorithm=Algorithm[arguments.algorithm.upper().replace("-", "_")],
        ),
        file.key,
        arguments.out,
        report=lambda share, note: bar.update((1 + share) / 2, note),
    )
    bar.close()
    file.key.wipe()
    if arguments.register:
        base, full = arguments.catalog.resolve().parent, arguments.out.resolve()
        sealed = replace(
            entry,
            name=arguments.register,
            file=full.relative_to(base).as_posix() if full.is_relative_to(base) else full.as_posix(),
            sha256=sha256_of(arguments.out),
            key_id=header.key_id.hex(),
            min_version=header.model_version,
        )
        write_catalog(with_entry(catalog, sealed, make_default=False), arguments.catalog)
    replaced = {arguments.register, None if arguments.register else entry.name}
    in_the_clear = [
        other.name
        for other in catalog.models
        if other.weights == entry.weights and not other.key_id and other.name not in replaced
    ]
    _print_sealed(arguments, entry, use, header.key_id.hex(), in_the_clear)
    return 0


def _check_places(arguments: argparse.Namespace, catalog: Catalog) -> None:
    """Refuse what could not be written at the end, before a key is made that would be left over.

    Raises:
        ConfigError: A file is there already, its directory is not, or the name is none for a catalog.
    """
    if arguments.key_out is not None and arguments.key_out.exists():
        raise ConfigError(f"{arguments.key_out} exists; a key is never overwritten (use it with --key)")
    if arguments.out.exists():
        raise ConfigError(f"{arguments.out} exists; name another file with --out")
    for path in (arguments.out, arguments.key_out or arguments.out):
        if not path.parent.is_dir():
            raise ConfigError(f"cannot write {path}: there is no directory {path.parent}")
    if arguments.register:
        with_entry(
            catalog, replace(catalog.entry(arguments.model), name=arguments.register), make_default=False
        )


def _print_sealed(
    arguments: argparse.Namespace, entry: Entry, use: SealedUse, key_id: str, in_the_clear: list[str]
) -> None:
    key_file = arguments.key_out or arguments.key
    if arguments.json:
        facts = {
            "model": entry.name,
            "registered": arguments.register,
            "file": str(arguments.out),
            "size_bytes": arguments.out.stat().st_size,
            "key_file": str(key_file),
            "key_id": key_id,
            "model_version": use.model_version,
            "content": use.content,
            "identity": use.identity,
            "in_the_clear": in_the_clear,
        }
        print(json.dumps(facts))
        return
    print(
        f"{arguments.out}: {entry.name}, version {use.model_version}, sealed under the key {key_id[:16]}..."
    )
    print(f"{key_file}: the key. Keep a copy, and keep it away from the machine that serves.")
    for name in in_the_clear if arguments.register else ():
        print(f"note: {name} lists the same weights in the clear; seal it as well, or remove it")
    if arguments.register:
        # A scorer is served beside whoever names it, never by itself.
        served = "GENERATOR" if entry.role == "scorer" else use.name
        print(f"next: {up_command(arguments.catalog, served)}")
        print(f"then: adyton-models release-key {use.name} --key {key_file} --simulated")


def run_release(arguments: argparse.Namespace) -> int:
    """Release a key."""
    if arguments.simulation_dir is not None and not arguments.simulated:
        raise ConfigError("--simulation-dir does nothing without --simulated")
    simulation = Simulation.from_dir(arguments.simulation_dir) if arguments.simulated else None
    file = read_key_file(arguments.key)
    destination = Destination(
        url=arguments.url,
        model=arguments.model,
        identity=_identity(arguments, file),
        policy=arguments.policy,
        simulation=simulation,
        api_key=_api_key(arguments.api_key_file),
    )
    if simulation is not None:
        announce_simulation(sys.stderr)
    try:
        with warnings.catch_warnings():
            # Announced above, in a form that cannot be missed.
            warnings.simplefilter("ignore", SimulatedAttestationWarning)
            done = release_key(file.key, destination)
    except ConfigError as error:
        if error.code == ConfigError.code:
            raise
        return _print_refusal(arguments, error)
    except AdytonError as error:
        return _print_refusal(arguments, error)
    finally:
        file.key.wipe()
    if arguments.json:
        facts = {"model": arguments.model, "state": done.state, "missing": list(done.missing)}
        print(json.dumps({**facts, "attestation": done.verdict.to_json()}))
    elif done.missing:
        print(f"{arguments.model}: key released; the enclave still waits for: {', '.join(done.missing)}")
    else:
        print(f"{arguments.model}: key released to the attested enclave, which serves the model now")
    return 0


def _print_refusal(arguments: argparse.Namespace, error: AdytonError) -> int:
    if arguments.json:
        facts = {"model": arguments.model, "state": "refused", "error": error.code, "message": str(error)}
        print(json.dumps({**facts, "reason": getattr(error, "reason", None)}))
    else:
        print(f"adyton-models: {error.code}: {error}", file=sys.stderr)
        if isinstance(error, AttestationError):
            print("the key was not sent", file=sys.stderr)
        if isinstance(error, AppraisalError) and error.check == RELEASED_MODEL_CHECK:
            print(
                "if the model is served otherwise on purpose (context, sampling, another name), say so with "
                f"--identity, as this prints it: adyton-models identity {arguments.model}",
                file=sys.stderr,
            )
    return _REFUSED


def _identity(arguments: argparse.Namespace, file: KeyFile) -> Digest:
    if arguments.identity is not None:
        try:
            return as_digest(arguments.identity)
        except LocalProtocolError as error:
            raise ConfigError(f"--identity: {error}") from error
    use = file.used_for(arguments.model)
    if use is None:
        known = ", ".join(sorted({use.name for use in file.models})) or "none"
        raise ConfigError(
            f"the key was not made for a model {arguments.model!r} (it was for: {known}); if it is served under "
            "another name, say which identity it has with --identity"
        )
    return use.identity


def _api_key(path: Path | None) -> str | None:
    if path is None:
        return None
    try:
        return path.read_text(encoding="utf-8").strip()
    except OSError as error:
        raise ConfigError(f"the API key file {path} cannot be read: {error.strerror}") from error
