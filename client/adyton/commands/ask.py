# SPDX-License-Identifier: Apache-2.0
"""``adyton ask``: one question, one proven answer."""

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path

from adyton.client import Client
from adyton.commands.options import (
    EXIT_CODES,
    OK,
    add_connection_options,
    add_model_options,
    add_trust_options,
    connect,
    sampling,
    save_json,
)
from adyton.commands.search_options import STRATEGIES_HELP, add_search_options, scaling_body
from adyton.conversation import Reply, Turn, take_turn
from adyton.explain import progress_line, search_lines, step_lines, tree_lines, vote_lines, winner_steps
from adyton.judgement import Judgement, judge_answer
from adyton.receipts import ReceiptRecord, ReportFile
from adyton.replay import SearchFile
from adyton.search_report import SearchReport
from adyton.session import Attested
from adyton.terminal import ProgressLine, emit_json, paint, say, write
from adyton_protocol.errors import ReceiptError
from adyton_protocol.scaling_transcript import transcript_from_json

_EXAMPLES = """examples:
  adyton ask --simulated "Leo has 12 pens. Mia has 4 more pens than Leo. How many pens does Mia have?"
  adyton ask --policy policy.json --url https://appliance.example "..." --save-receipt receipt.json
  adyton ask --simulated --json --seed 7 "..." | jq .answer
  adyton ask --simulated --strategy rebase-16 --explain "..."
  adyton ask --simulated --strategy auto "..." --save-transcript search.json
  echo "a long question" | adyton ask --simulated -

"""


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Register the command."""
    parser = subparsers.add_parser(
        "ask",
        help="ask one question and check the receipt of the answer",
        description="Ask one question. The question leaves this machine only after the enclave was verified, "
        "and only sealed to it. The answer goes to standard output, everything about it to standard error.",
        epilog=_EXAMPLES + STRATEGIES_HELP + EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("prompt", metavar="PROMPT", help="the question, or - to read it from standard input")
    parser.add_argument("--system", metavar="TEXT", help="an instruction to put before the question")
    parser.add_argument(
        "--stream",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="show the answer as it is made (default: yes, except with --json)",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object with answer and proof")
    parser.add_argument("--save-receipt", type=Path, metavar="FILE", help="keep the signed receipt")
    parser.add_argument("--save-report", type=Path, metavar="FILE", help="keep the evidence behind it")
    add_model_options(parser)
    search = add_search_options(parser)
    search.add_argument(
        "--explain",
        action="store_true",
        help="show votes, scored steps and the tree of the search (without --strategy: of auto)",
    )
    search.add_argument(
        "--save-transcript",
        type=Path,
        metavar="FILE",
        help="keep everything that adyton receipt replay needs to make the choice again",
    )
    add_trust_options(parser)
    add_connection_options(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Carry out the command."""
    prompt = sys.stdin.read() if args.prompt == "-" else args.prompt
    with connect(args) as client:
        attested = client.attest()
        messages = [{"role": "user", "content": prompt}]
        if args.system is not None:
            messages.insert(0, {"role": "system", "content": args.system})
        turn = Turn(
            model=args.model or default_model(attested),
            messages=messages,
            stream=args.stream and not args.json,
            sampling=sampling(args),
            scaling=scaling_body(args, return_all=args.explain or args.save_transcript is not None),
        )
        watch = SearchWatch()
        on_text = _discard if args.json else watch.write
        try:
            reply = take_turn(client.http(), turn, on_text, on_progress=watch.progress)
        finally:
            watch.clear()
        record = receipt_of(client)
        report = None if reply.report is None else SearchReport.parse(reply.report)
        judgement = None
        if args.explain and report is not None and not report.winner.steps:
            judgement = judge_answer(client.http(), model=turn.model, problem=prompt, answer=reply.text)
    _save(args, reply, record, report)
    if args.json:
        emit_json(_document(turn, reply, record, report, judgement))
        return OK
    write("\n")
    if report is not None:
        show_search(report)
        if args.explain:
            explain_search(report, reply, judgement)
    say(proof_line(record.attested))
    say(receipt_line(record))
    return OK


class SearchWatch:
    """The progress of a search on a line of its own, which makes room for the answer."""

    def __init__(self) -> None:
        self._line = ProgressLine()

    def progress(self, progress: Mapping[str, object]) -> None:
        """Show how far a search is."""
        self._line.show(progress_line(progress))

    def write(self, text: str) -> None:
        """Show a piece of the answer."""
        self.clear()
        write(text)

    def clear(self) -> None:
        """Leave nothing of the line."""
        self._line.clear()


def show_search(report: SearchReport) -> None:
    """Print what a search was, cost and thinks of itself, a line each."""
    for line in search_lines(report):
        say(line)


def explain_search(report: SearchReport, reply: Reply, judgement: Judgement | None) -> None:
    """Print the votes, the scorer's verdict on each step, and the candidates as a tree.

    Args:
        report: Of the search.
        reply: The answer.
        judgement: The scorer's verdict, where it had no part in the search.

    Raises:
        ReceiptError: The transcript is none.
    """
    lines = [*vote_lines(report)]
    if judgement is not None:
        lines += step_lines(judgement.scorer, judgement.steps)
        lines.append(
            "  asked for after the choice, in which it had no part; the scores have a receipt of their own"
        )
    elif report.scorer is not None:
        lines += step_lines(report.scorer, winner_steps(report, reply.text))
    if report.transcript is not None:
        transcript = transcript_from_json(report.transcript)
        lines += tree_lines(transcript.candidates, transcript.selection)
    for line in lines:
        say(line)


def _save(args: argparse.Namespace, reply: Reply, record: ReceiptRecord, report: SearchReport | None) -> None:
    if args.save_receipt is not None:
        save_json(args.save_receipt, record.to_json())
    if args.save_report is not None:
        save_json(args.save_report, ReportFile.of(record.attested).to_json())
    if args.save_transcript is not None:
        file = SearchFile.of(record, report, request=reply.request, response=reply.response)
        save_json(args.save_transcript, file.to_json())


def default_model(attested: Attested) -> str:
    """Return the first model of the attested keyset: the enclave's own word, not the host's."""
    return attested.verdict.keyset.extension.models[0].name


def receipt_of(client: Client) -> ReceiptRecord:
    """Return the receipt of the answer just given; the transport has checked it.

    Raises:
        ReceiptError: There is none, because the enclave ended the answer with an error.
    """
    record = client.last_receipt
    if record is None:
        raise ReceiptError("the answer has no receipt")
    return record


def proof_line(attested: Attested) -> str:
    """One line on the appraisal behind an answer."""
    verdicts = [check.verdict for check in attested.verdict.checks]
    skipped = f", {verdicts.count('skip')} skipped" if "skip" in verdicts else ""
    word = paint("accepted", "green", sys.stderr)
    kind = "" if attested.verdict.tee_type == "sgx" else " (SIMULATED evidence)"
    return f"attestation: {word}{kind}, {verdicts.count('pass')} checks passed{skipped}"


def receipt_line(record: ReceiptRecord) -> str:
    """One line on the receipt of an answer."""
    word = paint("valid", "green", sys.stderr)
    return f"receipt: {word} (about this question and this answer; attested key {record.receipt.key_id})"


def _document(
    turn: Turn,
    reply: Reply,
    record: ReceiptRecord,
    report: SearchReport | None,
    judgement: Judgement | None,
) -> dict[str, object]:
    verdict = record.attested.verdict
    search = {} if report is None else {"search": report.document}
    if judgement is not None:
        search["judgement"] = judgement.document
    return search | {
        "answer": reply.text,
        "model": turn.model,
        "finish_reason": reply.finish_reason,
        "usage": reply.usage,
        "simulated": verdict.tee_type != "sgx",
        "receipt_valid": True,
        "receipt": record.receipt.to_json(),
        "attestation": verdict.to_json(),
    }


def _discard(_text: str) -> None:
    """With --json the answer is printed whole."""
