# SPDX-License-Identifier: Apache-2.0
r"""One spelling for what can be spelled in several ways: Unicode, white space, markdown and LaTeX.

``settled`` is applied until nothing changes, so that a canonical form is its own canonical form.

SECURITY: which characters exist, and what they fold to, depends on the version of Unicode, and so of Python. Two
readers would differ. Here only the characters of Unicode 3.2 are normalised and folded, which every CPython
carries for IDNA and whose normal forms and foldings are stable by Unicode's own policy; later ones stay what they are.
"""

import re
from itertools import groupby
from typing import Final
from unicodedata import ucd_3_2_0

from adyton_protocol.answers.limits import MAX_ANSWER_CHARACTERS, MAX_ROUNDS

_SPACES: Final = "\t\n\v\f\r\x1c\x1d\x1e\x1f\x85\xa0\u1680\u2028\u2029\u202f\u205f\u3000" + "".join(
    map(chr, range(0x2000, 0x200B))
)
_NOTHING: Final = "\xad\u200b\u200c\u200d\u200e\u200f\u2060\ufeff\ufe0e\ufe0f"
_DASHES: Final = "\u2010\u2011\u2012\u2013\u2014\u2015\u2212\ufe58\ufe63\uff0d"
_ZEROS: Final = "\u0660\u06f0\u0966\u09e6\u0e50\uff10"
"""Zeros of the scripts whose digits are read: Arabic, Persian, Devanagari, Bengali, Thai and full width."""
_PARTS: Final = {
    "\u00bc": "1/4", "\u00bd": "1/2", "\u00be": "3/4", "\u2150": "1/7", "\u2151": "1/9", "\u2152": "1/10",
    "\u2153": "1/3", "\u2154": "2/3", "\u2155": "1/5", "\u2156": "2/5", "\u2157": "3/5", "\u2158": "4/5",
    "\u2159": "1/6", "\u215a": "5/6", "\u215b": "1/8", "\u215c": "3/8", "\u215d": "5/8", "\u215e": "7/8",
}  # fmt: skip
_CHARACTERS: Final = str.maketrans(
    dict.fromkeys(_SPACES, " ")
    | dict.fromkeys(_NOTHING, "")
    | dict.fromkeys(_DASHES, "-")
    | {chr(ord(zero) + digit): str(digit) for zero in _ZEROS for digit in range(10)}
    # Behind a space, because compatibility normalisation would make 21/2 of two and a half.
    | {sign: f" {spelt}" for sign, spelt in _PARTS.items()}
    | dict.fromkeys("\u2018\u2019\u201b\u2032", "'")
    | dict.fromkeys("\u201c\u201d\u201f", '"')
    | dict.fromkeys("\u2044\u2215", "/")
    | dict.fromkeys("\u00b7\u22c5\u2219\u2022", "\u00d7")
)
_RAISED: Final = str.maketrans(
    "\u2070\u00b9\u00b2\u00b3\u2074\u2075\u2076\u2077\u2078\u2079\u207a\u207b", "0123456789+-"
)
_LOWERED: Final = str.maketrans("\u2080\u2081\u2082\u2083\u2084\u2085\u2086\u2087\u2088\u2089", "0123456789")
_SUPERSCRIPT: Final = re.compile("[\u2070\u00b9\u00b2\u00b3\u2074-\u207b]+")
_SUBSCRIPT: Final = re.compile("[\u2080-\u2089]+")
_SURROGATE: Final = re.compile("[\ud800-\udfff]")

_LATEX: Final = re.compile(r"(\\[A-Za-z]+)[ ]*|(\\.)|([{}])|([^\\{}]+)|\\", re.ASCII | re.DOTALL)


def _commands(text: str) -> frozenset[str]:
    return frozenset(text.split())


_WRAPPERS: Final = _commands(
    r"\text \textbf \textit \textrm \textsf \texttt \textnormal \mathrm \mathbf \mathit \mathsf \mathtt \mbox \hbox "
    r"\operatorname \boxed \fbox \underline \emph \bm \boldsymbol"
)
_DROPPED: Final = _commands(
    r"\left \right \big \bigl \bigr \Big \Bigl \Bigr \bigg \biggl \biggr \Bigg \Biggl \Biggr \displaystyle \textstyle "
    r"\limits \nolimits \! \( \) \[ \] \$"
)
_WRITTEN: Final = {
    r"\dfrac": r"\frac", r"\tfrac": r"\frac", r"\cfrac": r"\frac", r"\times": "\u00d7", r"\cdot": "\u00d7",
    r"\ast": "\u00d7", r"\pm": "\u00b1", r"\mp": "\u00b1", r"\infty": "\u221e", r"\cup": "\u222a",
    r"\circ": "\u00b0", r"\degree": "\u00b0", r"\textdegree": "\u00b0", r"\le": "\u2264", r"\leq": "\u2264",
    r"\leqslant": "\u2264", r"\ge": "\u2265", r"\geq": "\u2265", r"\geqslant": "\u2265", r"\ne": "\u2260",
    r"\neq": "\u2260", r"\lt": "<", r"\gt": ">", r"\emptyset": "\u2205", r"\varnothing": "\u2205",
    r"\div": "\u00f7", r"\pi": "\u03c0", r"\in": "\u2208", r"\approx": "\u2248", r"\sim": "~", r"\colon": ":",
    r"\lbrace": "{", r"\rbrace": "}", r"\lbrack": "[", r"\rbrack": "]", r"\ldots": "...", r"\dots": "...",
    r"\cdots": "...", r"\bar": r"\overline", r"\pounds": "\u00a3", r"\euro": "\u20ac", r"\quad": " ", r"\qquad": " ",
    r"\,": " ", r"\;": " ", r"\:": " ", r"\>": " ", "\\ ": " ", "\\\\": " ", r"\%": "%", r"\{": "{", r"\}": "}",
    r"\&": "&", r"\#": "#", r"\_": "_",
}  # fmt: skip
_ONE_SCRIPT: Final = re.compile(r"([\^_])\{([A-Za-z0-9])\}", re.ASCII)
_DEGREES: Final = re.compile("\\^\\{?\u00b0\\}?")
_PLUS_MINUS: Final = re.compile(r"\+ ?/ ?-|\bplus or minus\b", re.ASCII | re.IGNORECASE)
_COMMAND: Final = re.compile(r"(\\[A-Za-z]+)", re.ASCII)
_WORD: Final = re.compile(r"(?<!\\)(?<![A-Za-z])[A-Za-z]{2,}", re.ASCII)
_AROUND_OPERATOR: Final = re.compile(" ?([-+*/^=<>\u2264\u2265\u2260\u00d7\u00f7\u00b1(){}|]) ?")
_ASCII_DIGITS: Final = frozenset("0123456789")
_QUOTES: Final = ("'", '"')


def settled(text: str) -> str | None:
    """A text in its simplest spelling, case kept; None when it is too long, no Unicode, or does not settle."""
    return _until_same(text, folding=False)


def folded(text: str) -> str | None:
    """As :func:`settled`, and without case; white space beside operators is gone where no words are."""
    return _until_same(text, folding=True)


def _until_same(text: str, *, folding: bool) -> str | None:
    for _ in range(MAX_ROUNDS):
        if len(text) > MAX_ANSWER_CHARACTERS or _SURROGATE.search(text) is not None:
            return None
        before = text
        text = _simplified(text)
        if folding and text == before:
            text = _tidied(_folded(text))
        if text == before:
            return text
    return None


def _simplified(text: str) -> str:
    text = _SUPERSCRIPT.sub(lambda found: "^{" + found.group().translate(_RAISED) + "}", text)
    text = _SUBSCRIPT.sub(lambda found: "_" + found.group().translate(_LOWERED), text)
    text = _normalised(text.translate(_CHARACTERS))
    text = _without_latex(text).replace("$", "").replace("{,}", ",")
    text = _PLUS_MINUS.sub("\u00b1", _DEGREES.sub("\u00b0", _ONE_SCRIPT.sub(r"\1\2", text)))
    return _without_edges(" ".join(word for word in text.split(" ") if word))


def _without_latex(text: str) -> str:
    """Without wrappers and spacing commands, and with symbols for the commands that name them."""
    if "\\" not in text:
        return text
    written: list[str] = []
    wraps: list[bool] = []
    pending = False
    for command, escape, brace, plain in _LATEX.findall(text):
        if brace == "{":
            wraps.append(pending)
        elif brace:
            pending = wraps.pop() if wraps else False
        if not (brace and pending):
            written.append(_written(command or escape) if command or escape else brace or plain)
        pending = command in _WRAPPERS
    return "".join(written)


def _written(command: str) -> str:
    if command in _WRAPPERS or command in _DROPPED:
        return ""
    return _WRITTEN.get(command, command)


def _without_edges(text: str) -> str:
    """Without markdown, the end of a sentence, and quotes that stand on both sides."""
    if not text.endswith("..."):
        # Three points say that digits are missing.
        text = text.rstrip(" .,;:?*_`")
    text = text.lstrip(" ,;:?*_`#=")
    if text[:1] == "." and text[1:2] not in _ASCII_DIGITS:
        text = text.lstrip(". ")
    if len(text) > 1 and text[0] in _QUOTES and text[-1] == text[0]:
        text = text[1:-1]
    return text


def _normalised(text: str) -> str:
    if text.isascii():
        return text
    # Between young characters: a mark that this Python knows would be sorted in among its older neighbours.
    runs = groupby(text, key=_is_young)
    return "".join(
        "".join(run) if young else ucd_3_2_0.normalize("NFKC", "".join(run)) for young, run in runs
    )


def _is_young(character: str) -> bool:
    return ucd_3_2_0.category(character) == "Cn"


def _folded(text: str) -> str:
    pieces = _COMMAND.split(text)
    pieces[::2] = ["".join(map(_fold, piece)) for piece in pieces[::2]]
    return "".join(pieces)


def _fold(character: str) -> str:
    return character if _is_young(character) else character.casefold()


def _tidied(text: str) -> str:
    return text if _WORD.search(text) is not None else _AROUND_OPERATOR.sub(r"\1", text)
