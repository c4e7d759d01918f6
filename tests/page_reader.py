# SPDX-License-Identifier: Apache-2.0
"""Reads pages for people as a browser would, and demands that they fetch nothing and run nothing."""

import re
from html.parser import HTMLParser

REFERENCES = {
    "src", "href", "srcset", "data", "action", "formaction", "poster", "background", "cite", "ping", "style", "id",
    "longdesc", "manifest", "xlink:href", "usemap", "http", "target",
}  # fmt: skip
"""Attributes by which a page could fetch something, lead somewhere or carry a style of its own."""


class Reader(HTMLParser):
    """Collects what a browser would see."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str, str | None]] = []
        self.words: list[str] = []
        self.comments: list[str] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(tag, name, value) for name, value in attrs]
        if tag != "meta":
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    def handle_comment(self, data: str) -> None:
        self.comments.append(data)


def read(text: str) -> Reader:
    """Parse a page; every element is closed in its turn."""
    reader = Reader()
    reader.feed(text)
    reader.close()
    assert reader.open == []
    return reader


def check_self_contained(text: str) -> Reader:
    """Nothing is fetched, nothing runs, nothing leads away, and the file can be written."""
    reader = read(text)
    text.encode("utf-8")
    assert not {"script", "link", "img", "iframe", "object", "base", "form", "svg", "a"} & set(reader.tags)
    for _tag, name, _value in reader.attributes:
        assert name not in REFERENCES
        assert not name.startswith("on")
    assert reader.tags.count("style") == 1
    style = re.search(r"<style>(.*?)</style>", text, re.DOTALL)
    assert style is not None
    assert "url(" not in style[1]
    assert "@import" not in style[1]
    assert ("meta", "http-equiv", "Content-Security-Policy") in reader.attributes
    assert reader.comments == []
    return reader
