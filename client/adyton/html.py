# SPDX-License-Identifier: Apache-2.0
"""Pages for people: one file, no script, nothing fetched, every word escaped.

A :class:`Markup` comes out of this module alone; whatever else stands in a page is text, and text is escaped. So there
is no place at which somebody could forget to.
"""

import base64
import hashlib
import html
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from adyton.terminal import SIMULATED_BANNER, printable

Tag: TypeAlias = Literal[
    "body", "caption", "code", "dd", "div", "dl", "dt", "footer", "h1", "h2", "head", "html", "li", "main", "p",
    "section", "span", "strong", "style", "table", "tbody", "td", "th", "thead", "title", "tr", "ul",
]  # fmt: skip
Style: TypeAlias = Literal[
    "pass",
    "fail",
    "skip",
    "quiet",
    "wide",
    "verdict pass",
    "verdict fail",
    "verdict skip",
    "simulated",
    "banner",
]

_CSS: Final = """
:root { color-scheme: light dark; --ink: #1b1b1f; --paper: #fff; --line: #c4c4cc; --quiet: #55555f;
  --pass: #0b6b2e; --fail: #a80f1a; --skip: #7a4b00; --alarm: #ffd54a; --alarm-ink: #1b1b1f; }
@media (prefers-color-scheme: dark) { :root { --ink: #e8e8ee; --paper: #17171b; --line: #45454f; --quiet: #a9a9b4;
  --pass: #6fdc93; --fail: #ff8f8f; --skip: #f2c069; } }
body { margin: 0; font: 1rem/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper); }
main { max-width: 72rem; margin: 0 auto; padding: 1rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin-top: 2rem; }
code { font-family: ui-monospace, monospace; font-size: .9em; overflow-wrap: anywhere; }
table { width: 100%; border-collapse: collapse; margin: 1rem 0; }
caption { text-align: left; color: var(--quiet); padding-bottom: .5rem; }
th, td { text-align: left; vertical-align: top; padding: .4rem .5rem; border-top: 1px solid var(--line);
  overflow-wrap: anywhere; }
td.wide { width: 40%; } td ul { margin: 0; padding-left: 1rem; }
dt { font-weight: 600; } dd { margin: 0 0 .5rem 0; overflow-wrap: anywhere; }
.pass { color: var(--pass); font-weight: 600; } .fail { color: var(--fail); font-weight: 600; }
.skip { color: var(--skip); font-weight: 600; } .quiet { color: var(--quiet); }
.verdict { font-size: 1.25rem; border-left: .4rem solid; padding: .3rem 0 .3rem 1rem; }
body.simulated { border: .6rem solid var(--alarm); }
.banner { background: var(--alarm); color: var(--alarm-ink); font-weight: 700; padding: .8rem 1rem;
  position: sticky; top: 0; print-color-adjust: exact; -webkit-print-color-adjust: exact; }
@media print { :root { --ink: #000; --paper: #fff; --line: #999; --quiet: #333; --pass: #000; --fail: #000;
  --skip: #000; } body { font-size: 9pt; } main { max-width: none; padding: 0; } .banner { position: static;
  border: 2pt solid #000; } tr { break-inside: avoid; } thead { display: table-header-group; } }
"""
_CSP: Final = (
    "default-src 'none'; base-uri 'none'; form-action 'none'; "
    f"style-src 'sha256-{base64.b64encode(hashlib.sha256(_CSS.encode()).digest()).decode()}'"
)
_MAX_TEXT_CHARS: Final = 16_384


@dataclass(frozen=True, slots=True)
class Markup:
    """Markup that holds no word that was not escaped; made by this module alone.

    Attributes:
        text: It.
    """

    text: str


Content: TypeAlias = Markup | str


def element(tag: Tag, *content: Content, style: Style | None = None, scope: str | None = None) -> Markup:
    """Make an element; strings in it are escaped, whoever wrote them.

    Args:
        tag: Its name.
        content: What stands in it, in order.
        style: One of the page's classes.
        scope: ``col`` or ``row`` for a head cell.
    """
    attributes = "".join(
        f' {name}="{html.escape(value)}"'
        for name, value in (("class", style), ("scope", scope))
        if value is not None
    )
    return Markup(f"<{tag}{attributes}>{joined(content).text}</{tag}>")


def joined(content: Iterable[Content]) -> Markup:
    """Put markup and text behind one another."""
    return Markup("".join(item.text if isinstance(item, Markup) else _escaped(item) for item in content))


def _escaped(text: str) -> str:
    """Make text of unknown origin harmless.

    SECURITY: the names and details on a page come from evidence that nobody has accepted. Escaping keeps them text;
    control and direction characters go, so that they cannot change how the words around them read; and no detail is so
    long that it hides the rest.
    """
    shown = printable(text)
    cut = shown if len(shown) <= _MAX_TEXT_CHARS else f"{shown[:_MAX_TEXT_CHARS]}… (cut)"
    return html.escape(cut, quote=True)


def facts(rows: Iterable[tuple[str, Content]]) -> Markup:
    """List facts under their names."""
    return element(
        "dl",
        *(
            part
            for name, value in rows
            for part in (
                element("dt", name),
                element("dd", value if isinstance(value, Markup) else element("code", value)),
            )
        ),
    )


def listed(items: Sequence[str]) -> Markup:
    """Show sentences: one as it is, several as a list."""
    if len(items) == 1:
        return joined(items)
    return element("ul", *(element("li", item) for item in items))


def table(caption: str, heads: Sequence[str], rows: Iterable[Sequence[Content]]) -> Markup:
    """Make a table; the first cell of each row is its head."""
    return element(
        "table",
        element("caption", caption),
        element("thead", element("tr", *(element("th", head, scope="col") for head in heads))),
        element(
            "tbody",
            *(
                element("tr", element("th", first, scope="row"), *(element("td", cell) for cell in rest))
                for first, *rest in rows
            ),
        ),
    )


def section(title: str, *content: Content) -> Markup:
    """Make a section with its heading."""
    return element("section", element("h2", title), *content)


def page(title: str, *content: Content, simulated: bool) -> str:
    """Make the file.

    Args:
        title: Of the page.
        content: Below the heading.
        simulated: Whether what the page is about protects nothing; said above, below, in the title and in a frame.
    """
    banner = element("div", SIMULATED_BANNER, style="banner")
    around: tuple[Content, ...] = (banner,) if simulated else ()
    head = Markup(
        '<meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{html.escape(_CSP)}">'
        '<meta name="referrer" content="no-referrer">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{_escaped(('SIMULATED: ' if simulated else '') + title)}</title>"
        f"<style>{_CSS}</style>"
    )
    body = element(
        "body",
        *around,
        element("main", element("h1", title), *content),
        *around,
        style="simulated" if simulated else None,
    )
    return f'<!doctype html>\n<html lang="en"><head>{head.text}</head>\n{body.text}</html>\n'
