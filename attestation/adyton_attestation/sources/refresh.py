# SPDX-License-Identifier: Apache-2.0
"""Refresh one file of endorsements: ``python -m adyton_attestation.sources.refresh --out FILE --cache DIR``.

For hosts, which serve that file to their clients and must not load the verifier themselves. The attestation report of
the enclave comes on standard input; it says which platform this is, and is not appraised. The file is replaced in one
step, and stays as it is when nothing better could be had. One JSON object on standard output says what happened.

Exit status: 0 when the file is as good as it can be now, 4 when endorsements could not be had (the file, if there is
one, was left alone), 2 for unusable input.
"""

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from adyton_attestation.signing_keys import parse_public_key
from adyton_attestation.sources.cache import EndorsementCache, write_atomically
from adyton_attestation.sources.choice import PCS, SourceOptions, choose_source, read_anchor
from adyton_attestation.sources.fetching import Dial
from adyton_attestation.sources.pcs import Channel
from adyton_attestation.sources.supply import EndorsementSupply, Supplied
from adyton_attestation.times import format_time
from adyton_protocol.errors import AdytonError, EndorsementsUnavailable
from adyton_protocol.media import MAX_REPORT_BYTES
from adyton_protocol.report import parse_report

OK: Final = 0
UNUSABLE: Final = 2
UNAVAILABLE: Final = 4


def parser() -> argparse.ArgumentParser:
    """Return the command line."""
    result = argparse.ArgumentParser(
        prog="python -m adyton_attestation.sources.refresh",
        description="Refresh the endorsements that a host serves, for the platform of the report on standard input.",
    )
    result.add_argument("--out", type=Path, required=True, metavar="FILE", help="what the host serves")
    result.add_argument("--cache", type=Path, required=True, metavar="DIR", help="where sets are kept")
    result.add_argument(
        "--source", default=PCS, metavar="pcs|pccs=URL|FILE", help="whom to ask (default: pcs)"
    )
    result.add_argument("--source-ca", type=Path, metavar="PEM", help="the CA of a caching service")
    result.add_argument("--proxy", metavar="URL", help="a proxy on the way to the source")
    result.add_argument(
        "--update", choices=("standard", "early"), default="standard", help="which set to ask for"
    )
    result.add_argument("--carrier", metavar="KEY", help="whose bundle FILE may be")
    result.add_argument("--root", type=Path, metavar="PEM", help="a root certificate instead of Intel's")
    return result


def refresh(arguments: argparse.Namespace, report: bytes, now_s: int) -> dict[str, object]:
    """Refresh the file once; returns what holds now.

    Args:
        arguments: Of :func:`parser`.
        report: Attacker-controlled attestation report.
        now_s: Unix time.

    Raises:
        EndorsementsUnavailable: They could not be had, and none that hold are kept.
        AttestationError: The report does not say what it needs.
        ConfigError: An argument is unusable, or a file cannot be written.
    """
    anchor = read_anchor(arguments.root)
    options = SourceOptions(
        dial=Dial(ca_file=arguments.source_ca, proxy=arguments.proxy),
        channel=Channel(update=arguments.update),
        carrier=None if arguments.carrier is None else parse_public_key(arguments.carrier),
    )
    supply = EndorsementSupply(
        choose_source(arguments.source, options),
        anchor,
        EndorsementCache(arguments.cache, anchor),
        # The caller decides how often to ask; each time is meant.
        refetch_after_s=0,
    )
    supplied = supply.for_quote(parse_report(report).quote, now_s)
    write_atomically(arguments.out, supplied.data)
    return _state(supplied)


def _state(supplied: Supplied) -> dict[str, object]:
    vetted = supplied.kept.vetted
    return {
        "status": "fresh" if supplied.fresh else "kept",
        "family": vetted.family.label,
        "issued_at": format_time(vetted.issued_s),
        "expires_at": format_time(vetted.first_to_expire.last_s),
        "expires_s": vetted.first_to_expire.last_s,
        "evaluation_number": vetted.evaluation_number,
        "notice": supplied.notice,
    }


def main(argv: Sequence[str] | None = None) -> int:
    """Refresh once; returns the exit status."""
    arguments = parser().parse_args(argv)
    now_s = int(time.time())  # noqa: TID251 - the edge: the clock is read once, here
    try:
        state = refresh(arguments, sys.stdin.buffer.read(MAX_REPORT_BYTES + 1), now_s)
        code = OK
    except AdytonError as error:
        code = UNAVAILABLE if isinstance(error, EndorsementsUnavailable) else UNUSABLE
        state = {"status": "unavailable" if code == UNAVAILABLE else "unusable", "error": error.code}
        state["notice"] = str(error)
    sys.stdout.write(json.dumps(state) + "\n")
    return code


if __name__ == "__main__":
    sys.exit(main())
