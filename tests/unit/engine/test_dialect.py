# SPDX-License-Identifier: Apache-2.0
"""A model's dialect is read off its template, and never taken for one that it is not."""

import pytest

from adyton_enclave.engine.dialect import ToolFormat, find_dialect

CONTROLS = {"<|end|>": 1, "[TOOL_CALLS]": 2, "<|python_tag|>": 3, "<tool_call>": 4}
LISTED = "{% for tool in tools %}{{ tool | tojson }}{% endfor %}"


@pytest.mark.parametrize(
    ("source", "tool_format"),
    [
        (LISTED + "write <tool_call> JSON", ToolFormat.HERMES),
        (LISTED + "write <tool_call><function=name>", ToolFormat.GENERIC),
        (LISTED + "write <tool_call>name<arg_key>", ToolFormat.GENERIC),
        (LISTED + "[TOOL_CALLS]", ToolFormat.MISTRAL),
        (LISTED + "[TOOL_CALLS]name[ARGS]", ToolFormat.GENERIC),
        (LISTED + 'write {"name": ..., "parameters": ...} ipython', ToolFormat.LLAMA3),
        (LISTED + "in words", ToolFormat.GENERIC),
        ("it says <tool_call> but takes no list", ToolFormat.GENERIC),
        ("{% set tools = 1 %}<tool_call>{{ tools }}", ToolFormat.GENERIC),
        ("{% for %} <tool_call>", ToolFormat.GENERIC),
        (None, ToolFormat.GENERIC),
    ],
)
def test_tool_formats(source: str | None, tool_format: ToolFormat) -> None:
    """By what the template reads and writes; when in doubt, the form that needs no help of the template."""
    assert find_dialect(source, CONTROLS).tool_format is tool_format


@pytest.mark.parametrize(
    ("source", "tokens", "reasoning"),
    [
        ("{{ content.split('</think>') }}", frozenset(), ("<think>", "</think>")),
        ("{{ content }}", frozenset({"<think>", "</think>"}), ("<think>", "</think>")),
        ("{{ content }}", frozenset({"<think>"}), None),
        ("[THINK]{{ content }}[/THINK]", frozenset(), ("[THINK]", "[/THINK]")),
        ("{{ content }}", frozenset(), None),
    ],
)
def test_reasoning_marks(source: str, tokens: frozenset[str], reasoning: tuple[str, str] | None) -> None:
    """Of the template, or both of them tokens of the vocabulary."""
    assert find_dialect(source, {}, tokens).reasoning == reasoning


def test_what_else_is_read_off() -> None:
    """Marks that are control tokens, variables, and whether system messages are taken."""
    dialect = find_dialect("{% if enable_thinking %}{% endif %}", CONTROLS)
    assert dialect.control_ids == {"[TOOL_CALLS]": 2, "<|python_tag|>": 3, "<tool_call>": 4}
    assert dialect.variables == {"enable_thinking"}
    assert dialect.system_role
    assert not find_dialect("{{ raise_exception('System role not supported') }}", {}).system_role
