# SPDX-License-Identifier: Apache-2.0
"""What a candidate answers, read from its text and brought to one canonical form."""

from adyton_protocol.answers.rule import AnswerRule

__all__ = ["AnswerRule"]
