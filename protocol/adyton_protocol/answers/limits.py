# SPDX-License-Identifier: Apache-2.0
"""The bounds of reading answers. They are part of the reading: another bound is another reading of some text."""

from typing import Final

MAX_TEXT_CHARACTERS: Final = 2**18
"""Of a longer text, only the end is looked at; an answer stands at the end."""
MAX_ANSWER_CHARACTERS: Final = 512
"""A longer answer is not read, unless it is JSON."""
MAX_KEY_CHARACTERS: Final = 1024
"""Longest key; of a longer canonical form the key holds the SHA-256."""
MAX_JSON_CHARACTERS: Final = 2**16
"""Longest JSON text that is read."""
MAX_JSON_DEPTH: Final = 32
"""Deepest nesting of JSON. SECURITY: checked before parsing, since where Python's own parser gives up depends on how
deep the stack is already, and two readers have to agree."""
MAX_FIELD_CHARACTERS: Final = 256
"""Longest name of, or pointer to, a field."""
MAX_DIGITS: Final = 256
"""Most digits in a row that are a number."""
MAX_EXPONENT: Final = 400
"""Largest power of ten, or of another base, either sign; double precision needs 324."""
MAX_NUMBER_BITS: Final = 2048
"""Largest numerator or denominator. Below the 640 decimal digits that every Python is willing to print."""
MAX_NESTING: Final = 8
"""Deepest fraction within a fraction."""
MAX_ITEMS: Final = 64
"""Most members of a set, list or union."""
MAX_ROUNDS: Final = 8
"""How often a text is simplified until it stays what it is; one that has not settled by then is unreadable."""
