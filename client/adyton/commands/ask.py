# SPDX-License-Identifier: Apache-2.0
"""``adyton ask``: one question, one proven answer."""

import argparse
import sys
from collections.abc import Mapping
from dataclasses import dataclass
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
from adyton.conversation import Reply, Turn, choices_of, take_turn
from adyton.explain import progress_line, search_lines, step_lines, tree_lines, vote_lines, winner_steps
from adyton.judgement import Judgement, judge_answer
from adyton.receipts import ReceiptRecord, ReportFile
from adyton.replay import SearchFile
from adyton.search_report import SearchReport
from adyton.session import Attested
from adyton.terminal import ProgressLine, emit_json, paint, say, write
from adyton_protocol.errors import ReceiptError
from adyton_protocol.scaling_replay import check_search, search_keys
from adyton_protocol.scaling_transcript import Transcript, transcript_from_json

_EXAMPLES = """examples:
  adyton ask --simulated "Leo has 12 pens. Mia has 4 more pens than Leo. How many pens does Mia have?"
  adyton ask --policy policy.toml --url https://appliance.example "..." --save-receipt receipt.json
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """An answer with everything that came with it.

    Attributes:
        turn: What was asked.
        reply: The answer.
        record: Its checked receipt.
        report: Of the search, if one was made.
        transcript: Of the search, if it came along; held to the receipt, and the choice made again.
        judgement: The scorer's verdict, where it had no part in the search and an explanation was asked for.
    """

    turn: Turn
    reply: Reply
    record: ReceiptRecord
    report: SearchReport | None
    transcript: Transcript | None
    judgement: Judgement | None

    def winners(self) -> list[str]:
        """The answers: the one, or the different ones that ``k`` asked for, best first."""
        if self.report is None:
            return [self.reply.text]
        # Where all candidates came back, winners come first.
        n = len(self.report.choices if self.transcript is None else self.transcript.selection.winners)
        texts = choices_of(self.reply.response)
        return [self.reply.text, *(texts[index] for index in range(1, n) if index in texts)]


def run(args: argparse.Namespace) -> int:
    """Carry out the command."""
    answered = _ask(args, sys.stdin.read() if args.prompt == "-" else args.prompt)
    _save(args, answered)
    if args.json:
        emit_json(_document(answered))
        return OK
    for other in answered.winners()[1:]:
        write(f"\n\n{other}")
    write("\n")
    if answered.report is not None:
        show_search(answered.report)
        if args.explain:
            _explain(answered, answered.report)
    say(proof_line(answered.record.attested))
    say(receipt_line(answered.record))
    return OK


def _ask(args: argparse.Namespace, prompt: str) -> Answered:
    """Ask, show the answer as it comes, and check all that came with it."""
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
        transcript = None
        if report is not None and report.transcript is not None:
            transcript = transcript_from_json(report.transcript)
            check_search(record.verified, transcript, search_keys(record.secret))
        judgement = None
        if args.explain and report is not None and not report.winner.steps:
            judgement = judge_answer(client.http(), model=turn.model, problem=prompt, answer=reply.text)
    return Answered(
        turn=turn, reply=reply, record=record, report=report, transcript=transcript, judgement=judgement
    )


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


def _explain(answered: Answered, report: SearchReport) -> None:
    """Print the votes, the scorer's verdict on each step, and the candidates as a tree."""
    lines = [*vote_lines(report)]
    judgement, transcript = answered.judgement, answered.transcript
    if judgement is not None:
        lines += step_lines(judgement.scorer, judgement.steps)
        lines.append(
            "  asked for after the choice, in which it had no part; these scores have a receipt of their own"
        )
    elif report.scorer is not None:
        lines += step_lines(report.scorer, winner_steps(report, answered.reply.text))
    if transcript is not None:
        lines += tree_lines(transcript.candidates, transcript.selection)
        lines.append("choice: the receipt commits to these candidates; made again here, it is the same")
    for line in lines:
        say(line)


def _save(args: argparse.Namespace, answered: Answered) -> None:
    record, reply = answered.record, answered.reply
    if args.save_receipt is not None:
        save_json(args.save_receipt, record.to_json())
    if args.save_report is not None:
        save_json(args.save_report, ReportFile.of(record.attested).to_json())
    if args.save_transcript is not None:
        file = SearchFile.of(record, answered.report, request=reply.request, response=reply.response)
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


def _document(answered: Answered) -> dict[str, object]:
    verdict, reply = answered.record.attested.verdict, answered.reply
    document: dict[str, object] = {
        "answer": reply.text,
        "model": answered.turn.model,
        "finish_reason": reply.finish_reason,
        "usage": reply.usage,
        "simulated": verdict.tee_type != "sgx",
        "receipt_valid": True,
        "receipt": answered.record.receipt.to_json(),
        "attestation": verdict.to_json(),
    }
    if answered.report is not None:
        document |= {"answers": answered.winners(), "search": answered.report.document}
    if answered.judgement is not None:
        document["judgement"] = answered.judgement.document
    return document


def _discard(_text: str) -> None:
    """With --json the answer is printed whole."""
