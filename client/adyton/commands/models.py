# SPDX-License-Identifier: Apache-2.0
"""``adyton models``: what the enclave serves, by its own attested word."""

import argparse
import sys

import httpx

from adyton.commands.options import EXIT_CODES, OK, add_connection_options, add_trust_options, connect
from adyton.refusals import engine_error
from adyton.terminal import emit_json, say
from adyton_protocol.errors import RemoteProtocolError


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Register the command."""
    parser = subparsers.add_parser(
        "models",
        help="list the models and their attested identities",
        description="List the models of the enclave. An identity is one digest over weights, tokenizer, chat "
        "template and defaults; the quote binds it.",
        epilog="example:\n  adyton models --simulated\n\n" + EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--json", action="store_true", help="print the enclave's list as JSON")
    add_trust_options(parser)
    add_connection_options(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Carry out the command."""
    with connect(args) as client:
        response = client.http().get("/v1/models")
        if response.status_code != httpx.codes.OK:
            raise engine_error(response.status_code, response.content, response.headers.get("retry-after"))
        try:
            document = response.json()
        except ValueError as error:
            raise RemoteProtocolError("the list of models is not JSON") from error
        if args.json:
            emit_json(document)
            return OK
        for model in client.attest().verdict.keyset.extension.models:
            say(f"{model.name}  {model.identity}", sys.stdout)
    return OK
