# SPDX-License-Identifier: Apache-2.0
r"""What a candidate's answer is: found in its text and brought to a key that equal answers share.

The enclave reads answers to let them vote, and whoever checks a receipt reads them again, years later and on another
interpreter. So nothing here depends on the clock, the locale, the depth of the stack, the order of a hash or the
version of Unicode, and every text is read within fixed bounds. See ``docs/answers.md`` for the forms.

>>> from adyton_protocol.answers import AnswerRule, read_answer
>>> read_answer(r"Half of seven is \boxed{\frac{7}{2}}.", AnswerRule()).key
'number:7/2'
"""

from adyton_protocol.answers.answer import Answer, AnswerClass, Source, classes
from adyton_protocol.answers.reading import read_answer
from adyton_protocol.answers.rule import AnswerRule, Equivalence, Extract

__all__ = [
    "Answer",
    "AnswerClass",
    "AnswerRule",
    "Equivalence",
    "Extract",
    "Source",
    "classes",
    "read_answer",
]
