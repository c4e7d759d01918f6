# SPDX-License-Identifier: Apache-2.0
"""``adyton chat``: a conversation in the terminal; its history lives in this process only."""

import argparse
import contextlib
import sys

from adyton.client import Client
from adyton.commands.ask import default_model, proof_line, receipt_line, receipt_of
from adyton.commands.options import (
    EXIT_CODES,
    OK,
    add_connection_options,
    add_model_options,
    add_trust_options,
    connect,
    sampling,
)
from adyton.conversation import Message, Turn, take_turn
from adyton.terminal import paint, say, write
from adyton_protocol.errors import AttestationError, EngineError, RelayRefused

_HELP = """/quit   leave (also Ctrl-D)
/reset  forget the conversation
/help   this text
Ctrl-C  stops an answer"""


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Register the command."""
    parser = subparsers.add_parser(
        "chat",
        help="talk to the model",
        description="Talk to the model. Every answer's receipt is checked; the whole conversation is sent, "
        "sealed, with every question and kept nowhere.",
        epilog="example:\n  adyton chat --simulated\n\nin the chat:\n" + _HELP + "\n\n" + EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_model_options(parser)
    add_trust_options(parser)
    add_connection_options(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Carry out the command."""
    with contextlib.suppress(ImportError):
        import readline  # noqa: F401, PLC0415 - importing it makes input() editable; nothing is saved.
    with connect(args) as client:
        attested = client.attest()
        model = args.model or default_model(attested)
        say(proof_line(attested))
        say(f"model: {model}; /help lists the commands")
        history: list[Message] = []
        while (line := _question()) is not None:
            match line.split():
                case []:
                    continue
                case ["/quit" | "/exit"]:
                    break
                case ["/reset"]:
                    history.clear()
                    say("forgotten")
                case ["/help"]:
                    say(_HELP)
                case _:
                    _answer(client, args, model, history, line)
    return OK


def _question() -> str | None:
    """Read a line; None at the end of input."""
    if sys.stdin.isatty():
        try:
            return input(paint("you> ", "bold", sys.stdout))
        except EOFError:
            say()
            return None
    line = sys.stdin.readline()
    return line.rstrip("\n") if line else None


def _answer(client: Client, args: argparse.Namespace, model: str, history: list[Message], line: str) -> None:
    """Ask, show, remember. An error of one turn leaves the conversation as it was."""
    question = {"role": "user", "content": line}
    turn = Turn(model=model, messages=[*history, question], sampling=sampling(args))
    try:
        reply = take_turn(client.http(), turn, write)
        write("\n")
        say(receipt_line(receipt_of(client)))
    except KeyboardInterrupt:
        write("\n")
        say("stopped; the question is not kept")
        return
    except (EngineError, RelayRefused) as error:
        say(paint(f"{error.code}: {error}", "red", sys.stderr))
        return
    except AttestationError:
        # Whatever answers there now is not what was verified at the start; do not go on.
        raise
    history += [question, {"role": "assistant", "content": reply.text}]
