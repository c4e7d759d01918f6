# SPDX-License-Identifier: Apache-2.0
"""Spellings of numbers: one rational, one key, whichever way it was written."""

import re
from decimal import Decimal, localcontext
from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st

from adyton_protocol.answers import AnswerRule, read_answer
from adyton_protocol.answers.canonical import key_of

FRACTIONS = st.fractions(-(10**12), 10**12, max_denominator=10**6)


def slow_number(text: str) -> Fraction:
    """The value of digits, separators, a point, an exponent and a slash, by way of `decimal`.

    Obvious rather than quick; shares nothing with the code that it checks.
    """
    above, _, below = text.replace(",", "").replace(" ", "").partition("/")
    with localcontext(prec=1000):
        quotient = [Fraction(*Decimal(part).as_integer_ratio()) for part in (above, below or "1")]
    return quotient[0] / quotient[1]


def is_decimal(value: Fraction) -> bool:
    """Whether a finite decimal has this value."""
    below = value.denominator
    for prime in (2, 5):
        while below % prime == 0:
            below //= prime
    return below == 1


def spellings(value: Fraction, times: int) -> list[str]:
    """Ways to write a rational, plain and in LaTeX."""
    sign, size = "-" if value < 0 else "", abs(value)
    above, below = size.numerator, size.denominator
    found = [
        f"{sign}{above}/{below}",
        f"{sign}{above * times} / {below * times}",
        rf"{sign}\frac{{{above}}}{{{below}}}",
        rf"\dfrac{{{sign}{above * times}}}{{{below * times}}}",
        rf"{sign}\frac{{ {above:,} }}{{ {below:,} }}",
        rf"{sign}\frac{{\frac{{{above}}}{{{times}}}}}{{\frac{{{below}}}{{{times}}}}}",
        f"{sign}({above}/{times})/({below}/{times})",
    ]
    if below > 1 and above > below:
        whole, rest = divmod(above, below)
        found += [f"{sign}{whole} {rest}/{below}", rf"{sign}{whole}\frac{{{rest}}}{{{below}}}"]
    if below == 1:
        found += [f"{sign}{above}", f"{sign}{above:,}", f"{sign}{above:,}.00", f"{sign}00{above}"]
        found += [f"{sign}{above:,}".replace(",", each) for each in ("{,}", r"\,", " ")]
    if is_decimal(size):
        with localcontext(prec=1000):
            digits = Decimal(above) / Decimal(below)
            found += [f"{sign}{digits:f}", f"{sign}{digits:e}", f"{sign}{digits:E}0"[:-1]]
            mantissa, _, exponent = f"{digits:e}".partition("e")
            found += [
                rf"{sign}{mantissa} \times 10^{{{int(exponent)}}}",
                f"{sign}{mantissa}x10^{int(exponent)}",
            ]
    return found


def dressings(text: str) -> list[str]:
    """Ways to present an answer that leave it what it is."""
    wide = "".join(chr(ord(each) + 0xFEE0) if each in "0123456789" else each for each in text)
    found = [
        text, f" {text} ", f"**{text}**", f"${text}$", f"${text}$.", rf"\({text}\)", rf"\text{{{text}}}",
        rf"\mathbf{{{text}}}", f"'{text}'", f"x = {text}", f"{text} pears", f"{text} dollars in total",
        text.replace("-", "\u2212"), wide,
    ]  # fmt: skip
    # Between round brackets a comma makes a pair.
    return found if "," in text else [*found, f"({text})", rf"\left({text}\right)"]


@given(FRACTIONS, st.integers(1, 9), st.data())
def test_one_rational_has_one_key_however_it_is_written(
    value: Fraction, times: int, data: st.DataObject
) -> None:
    """Spelling, dressing and place in the text do not matter."""
    for spelling in spellings(value, times):
        text = data.draw(st.sampled_from(dressings(spelling)))
        assert key_of(text, "auto") == key_of(text, "number") == f"number:{value}", text
        for place in (rf"So \boxed{{{text}}}!", f"The answer is: {text}"):
            found = read_answer(place, AnswerRule())
            assert found is not None
            assert found.key == f"number:{value}", place


@given(FRACTIONS, FRACTIONS)
def test_two_rationals_have_two_keys(one: Fraction, other: Fraction) -> None:
    """However near they are: no rounding takes part."""
    assert (key_of(str(one), "auto") == key_of(str(other), "auto")) == (one == other)
    tiny = one + Fraction(1, 10**40)
    assert key_of(str(tiny), "auto") != key_of(str(one), "auto")


@given(
    st.from_regex(
        re.compile(
            r"[-+]?(?:[1-9][0-9]{0,2}(?:,[0-9]{3}){1,3}|[0-9]{1,20})(?:\.[0-9]{1,12})?(?:[eE][-+]?[0-9]{1,2})?"
            r"(?: ?/ ?[1-9][0-9]{0,6}(?:\.[0-9]{1,3})?)?",
            re.ASCII,
        ),
        fullmatch=True,
    )
)
def test_digits_mean_what_decimal_says(text: str) -> None:
    """Every literal and quotient has the value that another reader gives it."""
    assert key_of(text, "auto") == f"number:{slow_number(text)}"


@given(
    st.integers(0, 10**6), st.text("0123456789", min_size=1, max_size=6), st.text("0123456789", max_size=4)
)
def test_a_bar_repeats_its_digits_for_ever(whole: int, repeats: str, part: str) -> None:
    """The value is the limit of writing the digits out, so within any power of ten of it."""
    key = key_of(rf"{whole}.{part}\overline{{{repeats}}}", "number")
    assert key is not None
    value = Fraction(key.removeprefix("number:"))
    written = Fraction(f"{whole}.{part}{repeats * 20}")
    assert 0 <= value - written <= Fraction(1, 10 ** (len(part) + 20 * len(repeats)))
    # And nothing else is so near with so small a denominator.
    assert (10 ** len(repeats) - 1) * 10 ** len(part) % value.denominator == 0


@given(FRACTIONS, st.sampled_from(["%", r"\%", " percent", " km", "km", " kilometers", " km long", " hours"]))
def test_what_scales_a_number_stays_in_its_key_unless_numbers_are_asked_for(
    value: Fraction, unit: str
) -> None:
    """A percentage or a length is never the bare number by itself."""
    key = key_of(f"{value}{unit}", "auto")
    assert key is not None
    assert key.startswith(("percent:", "quantity:"))
    assert key_of(f"{value}{unit}", "number") == f"number:{value}"


@given(st.lists(FRACTIONS, min_size=1, max_size=8), st.randoms(use_true_random=False))
def test_a_set_has_no_order_and_nothing_twice(values: list[Fraction], shuffle: object) -> None:
    """Shuffled and with repetitions it is the same set; a tuple is not."""
    again = values + values[: len(values) // 2]
    shuffle.shuffle(again)  # type: ignore[attr-defined]
    one, other = ("{" + ", ".join(map(str, each)) + "}" for each in (values, again))
    assert key_of(one, "auto") == key_of(other, "auto") == key_of(rf"\{other[:-1]}\}}", "auto")
    assert key_of(one, "auto") == "set:{" + ",".join(map(str, sorted(set(values)))) + "}"
    if len(values) > 1 and values != values[::-1]:
        pair, turned = (f"({', '.join(map(str, each))})" for each in (values, values[::-1]))
        assert key_of(pair, "auto") != key_of(turned, "auto")


@given(FRACTIONS, FRACTIONS, st.sampled_from(["()", "[)", "(]", "[]"]))
def test_ends_of_an_interval_are_numbers_and_its_brackets_count(
    low: Fraction, high: Fraction, shape: str
) -> None:
    """Ends are compared by value; open is not closed."""
    opening, closing = shape
    key = key_of(f"{opening}{low},{high}{closing}", "auto")
    decimals = [f"{2 * end}/2" if end.denominator == 1 else str(end) for end in (low, high)]
    assert key == key_of(rf"\left{opening} {decimals[0]} , {decimals[1]} \right{closing}", "auto")
    others = {
        key_of(f"{each[0]}{low},{high}{each[1]}", "auto") for each in {"()", "[)", "(]", "[]"} - {shape}
    }
    assert key not in others
    assert len(others) == 3


@given(FRACTIONS, FRACTIONS)
def test_plus_minus_is_both(middle: Fraction, spread: Fraction) -> None:
    """And so does not depend on the sign of the spread."""
    both = key_of("{" + f"{middle - spread}, {middle + spread}" + "}", "auto")
    assert key_of(rf"{middle} \pm {abs(spread)}", "auto") == both
    assert key_of(f"\u00b1{abs(spread)}", "auto") == key_of("{" + f"{-spread},{spread}" + "}", "auto")
