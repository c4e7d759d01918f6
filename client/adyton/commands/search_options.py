# SPDX-License-Identifier: Apache-2.0
"""Options that ask for a search, and the member ``scaling`` of the request that they make.

Which strategies there are and what they may cost is the enclave's to say: it refuses by name what it does not have.
"""

import argparse
import re
from typing import Final, get_args

from adyton_protocol.answers import AnswerRule, Equivalence, Extract
from adyton_protocol.errors import ConfigError
from adyton_protocol.selection.aggregate import AGGREGATES
from adyton_protocol.selection.bounds import STOP_KINDS
from adyton_protocol.strict_json import JsonObject

_STRATEGY: Final = re.compile(r"(?P<name>[a-z][a-z-]{0,31}?)(?:-(?P<n>[1-9][0-9]{0,3}))?")

STRATEGIES_HELP: Final = """strategies (NAME or NAME-N, such as rebase-16):
  auto       what this model was measured to answer best with, for the least
  rebase     a tree of steps; good steps get more continuations
  weighted   N whole answers; a vote counts as much as the scorer trusts it
  majority   N whole answers; each has one vote (needs no scorer)
  rpc        N whole answers; votes by the generator's own probability (needs no scorer)
  best-of-n  N whole answers; the scorer's best
  bom        the scorer's best among the frequent answers
  pairwise   knockout among N whole answers, judged by the scorer
  beam, dvts trees of fixed width, for comparison
  refine     further attempts that learn from the best and the worst before
  mcts       another tree, which was measured to be no better (with --experimental)
  single     one answer, as without a search

"""


def add_search_options(parser: argparse.ArgumentParser) -> "argparse._ArgumentGroup":
    """Add what may be asked of a search, without any of which there is none; returns their group."""
    group = parser.add_argument_group("search", "spend more compute on a better answer")
    group.add_argument(
        "--strategy", metavar="NAME[-N]", help="how to search, such as auto, rebase-16, majority-8"
    )
    group.add_argument("--n", type=int, metavar="N", help="candidates, or width of the tree")
    group.add_argument("--k", type=int, metavar="K", help="different answers wanted")
    group.add_argument(
        "--budget-tokens", type=int, metavar="N", help="most tokens to generate, all candidates together"
    )
    group.add_argument(
        "--budget-flops", type=float, metavar="X", help="most FLOPs, generator and scorer together"
    )
    group.add_argument(
        "--budget-ms", type=int, metavar="MS", help="longest time; makes the answer depend on timing"
    )
    group.add_argument("--aggregate", choices=AGGREGATES, help="how scores of steps become one")
    group.add_argument(
        "--stop", choices=STOP_KINDS, help="when a vote ends early: never, unanimous, or decided enough"
    )
    group.add_argument(
        "--answer",
        metavar="RULE",
        help="where the answer stands (boxed, the-answer-is, last-number, whole, field:NAME) and what it is "
        "(number, choice, text, json); both with a comma between",
    )
    group.add_argument(
        "--pad-to-budget",
        action="store_true",
        help="spend the whole budget, so that time and size say nothing of the question's difficulty; needs "
        "--budget-tokens",
    )
    group.add_argument(
        "--experimental", action="store_true", help="allow strategies that are known to be no better (mcts)"
    )
    return group


def scaling_body(args: argparse.Namespace, *, return_all: bool) -> JsonObject | None:
    """Make the member ``scaling``; None if no option asks for a search.

    Args:
        args: Of the command line.
        return_all: Whether all candidates shall come back, to be shown or kept.

    Raises:
        ConfigError: An option is malformed, or two contradict each other.
    """
    budget: JsonObject = {
        name: value
        for name, value in (
            ("policy_tokens", args.budget_tokens), ("total_flops", args.budget_flops), ("ms", args.budget_ms),
        )
        if value is not None
    }  # fmt: skip
    members: JsonObject = {
        "n": args.n,
        "k": args.k,
        "budget": budget or None,
        "aggregate": args.aggregate,
        "stop": None if args.stop is None else {"kind": args.stop},
        "answer": None if args.answer is None else answer_rule(args.answer).as_json(),
        "pad_to_budget": args.pad_to_budget or None,
        "experimental": args.experimental or None,
    }
    given: JsonObject = {name: value for name, value in members.items() if value is not None}
    if args.strategy is not None:
        named = named_strategy(args.strategy)
        if args.n is not None and named.get("n", args.n) != args.n:
            raise ConfigError(f"--strategy says {named['n']} candidates and --n says {args.n}")
        given = named | given
    if not given and not return_all:
        return None
    if "@" not in (args.model or ""):
        # Behind @ the name says it; two words for one thing would have to agree.
        given.setdefault("strategy", "auto")
    return given | ({"return": "all"} if return_all else {})


def named_strategy(text: str) -> JsonObject:
    """Read ``NAME`` or ``NAME-N`` as the beginning of the member ``scaling``.

    Raises:
        ConfigError: It is neither.
    """
    found = _STRATEGY.fullmatch(text)
    if found is None:
        raise ConfigError("a strategy is a name such as auto, or a name and a number such as rebase-16")
    name = {"best-of": "best-of-n"}.get(found["name"], found["name"])
    return {"strategy": name} if found["n"] is None else {"strategy": name, "n": int(found["n"])}


def answer_rule(text: str) -> AnswerRule:
    """Read the words of ``--answer``.

    Raises:
        ConfigError: One of them is unknown, or two say the same thing differently.
    """
    found: JsonObject = {}
    for word in text.split(","):
        key, _, value = word.strip().partition(":")
        if key == "field" and value:
            entry: JsonObject = {"extract": "field", "field": value}
        elif key in get_args(Extract) and not value:
            entry = {"extract": key}
        elif key in get_args(Equivalence) and not value:
            entry = {"equivalence": key}
        else:
            raise ConfigError(f"--answer: {word.strip()!r} is unknown; adyton ask --help lists the words")
        if entry.keys() & found.keys():
            raise ConfigError("--answer says twice where the answer stands or what it is")
        found |= entry
    return AnswerRule.parse(found, path="--answer", error=ConfigError)
