# SPDX-License-Identifier: Apache-2.0
"""The grammar of an answer: reasoning first where the model reasons, then text, a JSON document, or tool calls.

Written in llguidance's dialect of Lark. SECURITY: callers' texts enter as JSON string literals (names of functions,
which are plain words besides) and as schemas behind ``%json``; see ``json_schema``.
"""

import json
from collections.abc import Mapping
from typing import Final

from adyton_enclave.api.json_schema import schema_rule
from adyton_enclave.api.tools import Tool, ToolChoice, ToolSet
from adyton_enclave.engine.dialect import Dialect, ToolFormat

MAX_PARALLEL_CALLS: Final = 16
_COMMON: Final = r"""
TEXT: /(.|\n)*/
GAP: /[ \n]{0,4}/
"""


def answer_grammar(
    dialect: Dialect, *, document: Mapping[str, object] | None, tools: ToolSet | None, reasoning: bool
) -> str | None:
    """The grammar, or None when every text will do.

    Args:
        dialect: The model's.
        document: Checked schema of the document that the text has to be.
        tools: What may be called.
        reasoning: The prompt ended inside the model's reasoning.
    """
    if document is None and tools is None:
        return None
    rules = [_COMMON]
    bodies: list[str] = []
    if document is not None:
        rules.append(f"document: {schema_rule(dict(document))}")
        bodies.append("document")
    if tools is not None:
        calls = _Calls(dialect, tools)
        if tools.choice is ToolChoice.REQUIRED:
            bodies = [calls.alone()]
        elif document is not None:
            bodies.append(calls.alone())
        else:
            bodies.append(calls.after_text())
        rules += calls.rules
    rules.append(f"body: {' | '.join(bodies)}")
    rules.append(_start(dialect, reasoning=reasoning))
    return "\n".join(rules) + "\n"


def _start(dialect: Dialect, *, reasoning: bool) -> str:
    if dialect.reasoning is None:
        return "start: body"
    opening, closing = dialect.reasoning
    thought = _until(dialect, closing, "thought")
    if reasoning:
        return f"{thought}\nstart: thought GAP body"
    return f"{thought}\nstart: (GAP {_mark(dialect, opening)} thought GAP)? body"


def _mark(dialect: Dialect, mark: str) -> str:
    """A mark in a rule: by its id where it is a control token, which no text can spell."""
    token_id = dialect.control_ids.get(mark)
    return json.dumps(mark) if token_id is None else f"<[{token_id}]>"


def _until(dialect: Dialect, mark: str, rule: str) -> str:
    """A rule for any text up to a mark, the mark included."""
    if mark in dialect.control_ids:
        return f"{rule}: TEXT {_mark(dialect, mark)}"
    return f"{rule}[lazy]: TEXT {json.dumps(mark)}"


class _Calls:
    """Rules for the calls of a tool set."""

    def __init__(self, dialect: Dialect, tools: ToolSet) -> None:
        self._dialect = dialect
        self._format = dialect.tool_format
        key = "parameters" if self._format is ToolFormat.LLAMA3 else "arguments"
        self.rules = [self._call(at, tool, key) for at, tool in enumerate(tools.tools)]
        self.rules.append("call: " + " | ".join(f"call_{at}" for at in range(len(tools.tools))))
        more = f"{{0,{MAX_PARALLEL_CALLS - 1}}}" if tools.parallel else None
        match self._format:
            case ToolFormat.HERMES | ToolFormat.GENERIC:
                opening, closing = (_mark(dialect, mark) for mark in ("<tool_call>", "</tool_call>"))
                self._opening = "<tool_call>"
                self._rest = f'"\\n" call "\\n" {closing}'
                if more is not None:
                    self.rules.append(f'another: "\\n" {opening} "\\n" call "\\n" {closing}')
                    self._rest += f" another{more}"
            case ToolFormat.MISTRAL:
                self._opening = "[TOOL_CALLS]"
                self._rest = '"[" call "]"'
                if more is not None:
                    self.rules.append('another: ", " call')
                    self._rest = f'"[" call another{more} "]"'
            case ToolFormat.LLAMA3:
                self._opening = "<|python_tag|>"
                self._rest = "call"

    @staticmethod
    def _call(at: int, tool: Tool, key: str) -> str:
        head = json.dumps(f'{{"name": "{tool.name}", "{key}": ')
        return f'call_{at}: {head} {schema_rule(dict(tool.parameters), lenient=not tool.strict)} "}}"'

    def alone(self) -> str:
        """Calls and nothing else."""
        if self._format is ToolFormat.LLAMA3:
            return "call"
        return f"{_mark(self._dialect, self._opening)} {self._rest}"

    def after_text(self) -> str:
        """Any text, and perhaps calls behind it; text that begins like a call has to go on as one."""
        if self._format is ToolFormat.LLAMA3:
            self.rules.append('PLAIN: /(.|\\n)*/ & ~/\\{"name": "(.|\\n)*/')
            tag = self._dialect.control_ids.get(self._opening)
            return "PLAIN | call" + ("" if tag is None else f" | <[{tag}]> call")
        self.rules.append(_until(self._dialect, self._opening, "opening"))
        return f"TEXT | opening {self._rest}"
