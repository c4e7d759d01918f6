# SPDX-License-Identifier: Apache-2.0
"""The wording of the problems: frames (a verb and its things) times styles (how a relation is said).

A template is one frame with one style. To add templates, append a frame (each brings as many templates
as there are styles) or a style (as many as there are frames). Template numbers are stable only while
both tuples grow at the end. Every word of every wording becomes one token of the vocabulary, see
`adyton_models.tokenizer`.
"""

from dataclasses import dataclass

# fmt: off
NAMES: tuple[str, ...] = (
    "Ada", "Alice", "Amir", "Anna", "Ben", "Boris", "Carla", "Chen", "Clara", "Daniel", "David", "Dora",
    "Elena", "Emil", "Emma", "Eric", "Eva", "Felix", "Fiona", "Frank", "Gina", "Grace", "Hana", "Hans",
    "Helen", "Henry", "Ida", "Igor", "Ines", "Ivan", "Jack", "Jane", "Jonas", "Julia", "Kai", "Karl",
    "Kate", "Kim", "Lara", "Leo", "Lina", "Lisa", "Lucas", "Maria", "Mark", "Max", "Maya", "Mia",
    "Milan", "Nadia", "Nina", "Noah", "Nora", "Oleg", "Olga", "Oscar", "Otto", "Paul", "Petra", "Quinn",
    "Rita", "Robert", "Rosa", "Ruth", "Sam", "Sara", "Simon", "Sofia", "Stella", "Tara", "Theo", "Tina",
    "Tom", "Uma", "Vera", "Victor", "Wanda", "Yara", "Zara", "Zoe",
)
# fmt: on
"""People of the problems; a problem never uses one twice."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """A verb and the plural nouns it goes with."""

    said: str
    """Third person, as in `Tom bought 3 apples`."""
    asked: str
    """After the auxiliary, as in `did Tom buy`."""
    auxiliary: str
    nouns: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Style:
    """How the facts and the question are said.

    Fields `{a}` target, `{b}` and `{c}` references, `{k}` number, `{n}` noun, `{v}` verb, `{x}`
    auxiliary, `{i}` asked verb.
    """

    base: str
    more: str
    fewer: str
    times: str
    twice: str
    half: str
    together: str
    difference: str
    question: str


def _frame(said: str, asked: str, nouns: str, auxiliary: str = "did") -> Frame:
    return Frame(said=said, asked=asked, auxiliary=auxiliary, nouns=tuple(nouns.split()))


_FRUIT = "apples pears plums oranges lemons"
_TOYS = "marbles stamps coins cards shells"
_FOOD = "cakes pies rolls cookies muffins"
_PAPER = "letters books poems stories maps"

FRAMES: tuple[Frame, ...] = (
    _frame("has", "have", f"{_FRUIT} {_TOYS} pencils buttons", "does"),
    _frame("owns", "own", f"{_TOYS} books pencils maps", "does"),
    _frame("needs", "need", f"{_FRUIT} nails bricks pencils buttons", "does"),
    _frame("bought", "buy", f"{_FRUIT} {_FOOD} pencils nails"),
    _frame("sold", "sell", f"{_FRUIT} {_FOOD} books tickets"),
    _frame("picked", "pick", f"{_FRUIT} flowers berries"),
    _frame("baked", "bake", _FOOD),
    _frame("collected", "collect", f"{_TOYS} flowers tickets"),
    _frame("found", "find", f"{_TOYS} buttons berries"),
    _frame("made", "make", f"{_FOOD} toys maps baskets"),
    _frame("wrote", "write", _PAPER),
    _frame("read", "read", _PAPER),
    _frame("planted", "plant", "trees flowers bulbs seeds"),
    _frame("carried", "carry", "boxes bricks baskets bottles"),
    _frame("packed", "pack", "boxes bottles books toys"),
    _frame("painted", "paint", "toys boxes maps cards"),
    _frame("counted", "count", f"{_TOYS} birds trees stars"),
    _frame("saved", "save", "coins stamps tickets seeds"),
    _frame("washed", "wash", "bottles baskets apples shells"),
    _frame("ordered", "order", f"{_FOOD} books tickets bricks"),
    _frame("wants", "want", f"{_FRUIT} {_TOYS} tickets toys", "does"),
    _frame("borrowed", "borrow", "books maps pencils tools"),
    _frame("lost", "lose", f"{_TOYS} buttons pencils"),
    _frame("drew", "draw", "maps stars flowers trees birds"),
    _frame("sent", "send", "letters cards boxes books"),
    _frame("kept", "keep", f"{_TOYS} letters tools"),
    _frame("built", "build", "toys boxes baskets tables"),
    _frame("brought", "bring", f"{_FRUIT} {_FOOD} tools tables"),
)
"""Appending a frame adds as many templates as there are styles."""

STYLES: tuple[Style, ...] = (
    Style(
        base="{a} {v} {k} {n}.",
        more="{a} {v} {k} more {n} than {b}.",
        fewer="{a} {v} {k} fewer {n} than {b}.",
        times="{a} {v} {k} times as many {n} as {b}.",
        twice="{a} {v} twice as many {n} as {b}.",
        half="{a} {v} half as many {n} as {b}.",
        together="{a} {v} as many {n} as {b} and {c} together.",
        difference="{a} {v} the difference between {b} and {c}.",
        question="How many {n} {x} {a} {i}?",
    ),
    Style(
        base="{a} {v} {k} {n}.",
        more="{a} {v} {k} more than {b}.",
        fewer="{a} {v} {k} less than {b}.",
        times="{a} {v} {k} times as many as {b}.",
        twice="{a} {v} double what {b} {v}.",
        half="{a} {v} half of what {b} {v}.",
        together="{a} {v} as many as {b} and {c} combined.",
        difference="{a} {v} as many as {b} minus what {c} {v}.",
        question="What is the number of {n} {a} {v}?",
    ),
    Style(
        base="{a} {v} exactly {k} {n}.",
        more="{a} {v} as many {n} as {b} plus {k}.",
        fewer="{a} {v} as many {n} as {b} minus {k}.",
        times="{a} {v} as many {n} as {b} times {k}.",
        twice="{a} {v} as many {n} as {b} times 2.",
        half="{a} {v} half the {n} of {b}.",
        together="{a} {v} the {n} of {b} and {c} combined.",
        difference="{a} {v} as many {n} as {b} minus {c}.",
        question="Find the number of {n} {a} {v}.",
    ),
    Style(
        base="We know that {a} {v} {k} {n}.",
        more="Compared with {b}, {a} {v} {k} more {n}.",
        fewer="Compared with {b}, {a} {v} {k} fewer {n}.",
        times="Compared with {b}, {a} {v} {k} times as many {n}.",
        twice="Compared with {b}, {a} {v} twice as many {n}.",
        half="Compared with {b}, {a} {v} half as many {n}.",
        together="Just like {b} and {c} together, {a} {v} that many {n}.",
        difference="Take {b} minus {c}: {a} {v} that many {n}.",
        question="So how many {n} {x} {a} {i}?",
    ),
    Style(
        base="There are {k} {n} that {a} {v}.",
        more="Whatever {b} {v}, {a} {v} {k} more.",
        fewer="Whatever {b} {v}, {a} {v} {k} fewer.",
        times="Whatever {b} {v}, {a} {v} {k} times that.",
        twice="Whatever {b} {v}, {a} {v} twice that.",
        half="Whatever {b} {v}, {a} {v} half of that.",
        together="Add what {b} {v} to what {c} {v}: {a} {v} that.",
        difference="From what {b} {v} take what {c} {v}: {a} {v} that.",
        question="Tell how many {n} {a} {v}.",
    ),
    Style(
        base="The count of {n} {a} {v} is {k}.",
        more="The count of {n} {a} {v} is {k} above that of {b}.",
        fewer="The count of {n} {a} {v} is {k} below that of {b}.",
        times="The count of {n} {a} {v} is {k} times that of {b}.",
        twice="The count of {n} {a} {v} is double that of {b}.",
        half="The count of {n} {a} {v} is half that of {b}.",
        together="The count of {n} {a} {v} is the sum for {b} and {c}.",
        difference="The count of {n} {a} {v} is that of {b} less that of {c}.",
        question="What is the count of {n} {a} {v}?",
    ),
    Style(
        base="It is known that {a} {v} {k} {n}.",
        more="With {k} more {n}, {b} would match {a}.",
        fewer="With {k} fewer {n}, {b} would match {a}.",
        times="With {k} times the {n}, {b} would match {a}.",
        twice="With twice the {n}, {b} would match {a}.",
        half="With half the {n}, {b} would match {a}.",
        together="The {n} of {b} and {c} together would match {a}.",
        difference="The {n} of {b} minus those of {c} would match {a}.",
        question="Now, how many {n} {x} {a} {i}?",
    ),
    Style(
        base="{k} {n} is what {a} {v}.",
        more="{k} plus what {b} {v} is what {a} {v}.",
        fewer="{k} less than what {b} {v} is what {a} {v}.",
        times="{k} times what {b} {v} is what {a} {v}.",
        twice="Twice what {b} {v} is what {a} {v}.",
        half="Half of what {b} {v} is what {a} {v}.",
        together="What {b} {v} plus what {c} {v} is what {a} {v}.",
        difference="What {b} {v} minus what {c} {v} is what {a} {v}.",
        question="Say how many {n} {a} {v}.",
    ),
)
"""Appending a style adds as many templates as there are frames."""

TEMPLATE_COUNT = len(FRAMES) * len(STYLES)
"""28 frames times 8 styles."""


def template(number: int) -> tuple[Frame, Style]:
    """The frame and style of a template number in [0, TEMPLATE_COUNT)."""
    return FRAMES[number % len(FRAMES)], STYLES[number // len(FRAMES)]
