# SPDX-License-Identifier: Apache-2.0
"""Events are one line of ASCII JSON, whatever text is in them, and frames change nothing about that."""

import json

from hypothesis import given
from hypothesis import strategies as st

from adyton_enclave.api.events import TextFrame, dump, dump_text, event

_TEXT = st.text(st.characters(exclude_categories=("Cs",)))


@given(text=_TEXT)
def test_a_frame_words_the_same_event(text: str) -> None:
    """Byte for byte what encoding the whole event gives."""

    def word(inner: str) -> bytes:
        return event({"a": None, "choices": [{"delta": {"content": inner}, "index": 3}], "z": 1.5})

    assert TextFrame(word).fill(text) == word(text)


@given(text=_TEXT)
def test_no_text_breaks_out_of_its_line(text: str) -> None:
    """Neither line ends nor anything that some reader takes for one."""
    line = dump({"text": text})
    assert line.isascii()
    assert b"\n" not in line
    assert b"\r" not in line
    assert json.loads(line) == {"text": text}
    assert json.loads(dump_text(text)) == text
