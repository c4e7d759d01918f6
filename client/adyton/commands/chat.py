# SPDX-License-Identifier: Apache-2.0
"""``adyton chat``: a conversation in the terminal; its history lives in this process only."""

import argparse
import contextlib
import sys

from adyton.client import Client
from adyton.commands.ask import (
    SearchWatch,
    default_model,
    proof_line,
    receipt_line,
    receipt_of,
    show_search,
)
from adyton.commands.options import (
    EXIT_CODES,
    OK,
    add_connection_options,
    add_model_options,
    add_trust_options,
    connect,
    sampling,
)
from adyton.commands.search_options import named_strategy
from adyton.conversation import Message, Turn, take_turn
from adyton.search_report import SearchReport
from adyton.terminal import paint, say, write
from adyton_protocol.errors import ConfigError, EngineError, RelayRefused
from adyton_protocol.strict_json import JsonObject

_HELP = """/quit   leave (also Ctrl-D)
/reset  forget the conversation
/strategy NAME[-N]
        search for the following answers, such as /strategy rebase-16; /strategy off stops it
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
        scaling: JsonObject | None = None
        while (line := _question()) is not None:
            match line.split():
                case []:
                    continue
                case ["/quit" | "/exit"]:
                    break
                case ["/reset"]:
                    history.clear()
                    say("forgotten")
                case ["/strategy", name]:
                    scaling = _strategy(name, scaling)
                case ["/help" | "/strategy"]:
                    say(_HELP)
                case _:
                    question: Message = {"role": "user", "content": line}
                    turn = Turn(
                        model=model,
                        messages=[*history, question],
                        sampling=sampling(args),
                        scaling=scaling,
                    )
                    answer = _answer(client, turn)
                    if answer is not None:
                        history += [question, {"role": "assistant", "content": answer}]
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


def _strategy(name: str, before: JsonObject | None) -> JsonObject | None:
    """The search that ``/strategy NAME`` asks for; as before if it says nothing clear."""
    if name == "off":
        say("no search")
        return None
    try:
        scaling = named_strategy(name)
    except ConfigError as error:
        say(paint(str(error), "red", sys.stderr))
        return before
    say(f"search: {name}")
    return scaling


def _answer(client: Client, turn: Turn) -> str | None:
    """Ask and show; the answer, or None if it is not to be remembered."""
    watch = SearchWatch()
    try:
        reply = take_turn(client.http(), turn, watch.write, on_progress=watch.progress)
        write("\n")
        if reply.report is not None:
            show_search(SearchReport.parse(reply.report))
        say(receipt_line(receipt_of(client)))
    except KeyboardInterrupt:
        write("\n")
        say("stopped; the question is not kept")
        return None
    except (EngineError, RelayRefused) as error:
        say(paint(f"{error.code}: {error}", "red", sys.stderr))
        return None
    finally:
        watch.clear()
    # An AttestationError passes: whatever answers there now is not what was verified at the start; do not go on.
    return reply.text
