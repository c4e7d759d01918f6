# SPDX-License-Identifier: Apache-2.0
"""Bounds what a chat template can do: steps, sizes of texts and lists, sizes of numbers.

Jinja's sandbox keeps a template away from Python's insides, and bounds ``range``. It does not keep it from nesting
loops, recursing in all directions, doubling a text forty times or padding one to a gigabyte. A template is part of a
model, which is somebody else's; and what it does may depend on a caller's message. So each rendering has a budget of
steps, larger texts cost more, and nothing grows beyond a limit.

What is counted: turns of loops, calls of functions, methods and macros, filters, and operators that make something new.
"""

import contextlib
import functools
import re
from collections.abc import Callable, Iterator, Sized
from contextvars import ContextVar
from typing import Any, Final

from jinja2 import nodes
from jinja2.runtime import LoopContext, Macro
from jinja2.visitor import NodeTransformer

MAX_STEPS: Final = 500_000
MAX_TEXT_CHARS: Final = 16 * 1024 * 1024
MAX_ITEMS: Final = 1_000_000
MAX_ARGUMENT: Final = 100_000
MAX_NUMBER_BITS: Final = 256

INTERCEPTED: Final = frozenset({"+", "*", "**", "%"})
_BODY_STEPS: Final = 20
"""A macro, or a loop that calls itself, makes a frame and a text of its own."""
_CHARS_PER_STEP: Final = 1024
_ITEMS_PER_STEP: Final = 16
_WIDE_FORMAT: Final = re.compile(r"\d{5}|\*|:[^}]*\{")
_budget: ContextVar[list[int]] = ContextVar("template_budget")


class TooMuch(Exception):
    """A template does more than any conversation needs."""


@contextlib.contextmanager
def budget(steps: int = MAX_STEPS) -> Iterator[None]:
    """Give what is rendered inside so many steps."""
    token = _budget.set([steps])
    try:
        yield
    finally:
        _budget.reset(token)


def spend(steps: int = 1) -> None:
    """Take steps off the budget of this rendering; outside of one there is no budget.

    Raises:
        TooMuch: It is used up.
    """
    left = _budget.get(None)
    if left is not None:
        left[0] -= steps
        if left[0] < 0:
            raise TooMuch("steps")


def _bound(size: int, most: int) -> None:
    if size > most:
        raise TooMuch("size")


def weigh(value: object) -> None:
    """Spend steps for something that is gone through, and refuse it when it is too large."""
    if isinstance(value, str):
        _bound(len(value), MAX_TEXT_CHARS)
        spend(1 + len(value) // _CHARS_PER_STEP)
    elif isinstance(value, int):
        _bound(value.bit_length(), MAX_NUMBER_BITS)
        spend()
    else:
        spend(1 + len(value) // _ITEMS_PER_STEP if isinstance(value, Sized) else 1)


def check_operator(operator: str, left: Any, right: Any) -> None:
    """Refuse an operation whose result would be too large, before it is made."""
    weigh(left)
    weigh(right)
    if operator == "**":
        _bound(abs(right) if isinstance(right, int) else 0, MAX_NUMBER_BITS)
        _bound(left.bit_length() * max(right, 0) if isinstance(left, int) and isinstance(right, int) else 0,
               MAX_NUMBER_BITS)  # fmt: skip
    elif operator == "*":
        for many, times in ((left, right), (right, left)):
            if isinstance(many, Sized) and isinstance(times, int):
                _bound(len(many) * times, MAX_TEXT_CHARS if isinstance(many, str) else MAX_ITEMS)
    elif operator == "+" and isinstance(left, Sized) and isinstance(right, Sized):
        _bound(len(left) + len(right), MAX_TEXT_CHARS if isinstance(left, str) else MAX_ITEMS)
    elif operator == "%" and isinstance(left, str):
        check_format(left)


def check_format(text: str) -> None:
    """Refuse a format with a field of five digits, or of a width that stands elsewhere."""
    if _WIDE_FORMAT.search(text):
        raise TooMuch("format")


def concatenate(*parts: object) -> str:
    """What ``~`` means, within the limit."""
    texts = [str(part) for part in parts]
    _bound(sum(map(len, texts)), MAX_TEXT_CHARS)
    joined = "".join(texts)
    weigh(joined)
    return joined


def check_call(function: Any, arguments: tuple[Any, ...]) -> None:
    """Refuse a method of a text whose result would be too large; every call is a step."""
    owner = getattr(function, "__self__", None)
    if not isinstance(owner, str):
        spend(_BODY_STEPS if isinstance(function, Macro | LoopContext) else 1)
        return
    _check_growth(function.__name__, owner, arguments)


def _check_growth(name: str, text: str, arguments: tuple[Any, ...]) -> None:
    weigh(text)
    for argument in arguments:
        if isinstance(argument, int):
            _bound(abs(argument), MAX_ARGUMENT)
    match name, arguments:
        case ("replace", (_, str() as new, *_)):
            _bound((len(text) + 1) * len(new), MAX_TEXT_CHARS)
        case ("join", (items, *_)) if isinstance(items, Sized):
            _bound(len(items) * len(text), MAX_TEXT_CHARS)
        case ("indent", (str() as margin, *_)):
            _bound((text.count("\n") + 1) * len(margin), MAX_TEXT_CHARS)
        case ("expandtabs", (int() as width, *_)):
            _bound((text.count("\t") + 1) * abs(width), MAX_TEXT_CHARS)
        case ("format", _):
            check_format(text)
        case ("translate", _):
            raise TooMuch("translate")
        case _:
            pass


def limited_filter(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """A filter that costs steps, and takes no large numbers."""
    # Jinja hands environment or context to some filters first; the attribute that says so is copied along.
    first = 1 if hasattr(function, "jinja_pass_arg") else 0

    @functools.wraps(function)
    def limited(*arguments: Any, **named: Any) -> Any:
        value, *rest = arguments[first:]
        weigh(value)
        for argument in (*rest, *named.values()):
            if isinstance(argument, int):
                _bound(abs(argument), MAX_ARGUMENT)
        if isinstance(value, str):
            _check_growth(name, value, (*rest, *named.values()))
        elif name == "join" and rest and isinstance(rest[0], str) and isinstance(value, Sized):
            _bound(len(value) * len(rest[0]), MAX_TEXT_CHARS)
        result = function(*arguments, **named)
        if isinstance(result, str):
            weigh(result)
        return result

    return limited


class Limits(NodeTransformer):
    """Puts a step into every turn of a loop, and our ``~`` in the place of Jinja's."""

    def visit_For(self, node: nodes.For) -> nodes.Node:  # noqa: N802 - named after the node
        """A loop: its body begins with a step."""
        self.generic_visit(node)
        turn = nodes.EnvironmentAttribute("turn", lineno=node.lineno)
        node.body.insert(0, nodes.ExprStmt(turn, lineno=node.lineno))
        return node

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:  # noqa: N802 - named after the node
        """A concatenation: a call that looks at the sizes."""
        self.generic_visit(node)
        return _call("concatenate", node.nodes, node.lineno)


def _call(name: str, arguments: list[nodes.Expr], line: int) -> nodes.Call:
    function = nodes.EnvironmentAttribute(name, lineno=line)
    return nodes.Call(function, arguments, [], None, None, lineno=line)
