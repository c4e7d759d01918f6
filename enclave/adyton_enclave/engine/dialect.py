# SPDX-License-Identifier: Apache-2.0
"""How a model marks tool calls and reasoning: read off its chat template and its vocabulary, once at load.

Nothing is guessed from the model's name. A template that knows no tools, or writes calls in a form that is not among
ours, gets the generic form: the tools are described to the model in a system text.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Final

from jinja2 import TemplateError, meta

from adyton_enclave.engine.template_environment import TemplateEnvironment

REASONING_MARKS: Final = (("<think>", "</think>"), ("[THINK]", "[/THINK]"), ("<seed:think>", "</seed:think>"))
CALL_MARKS: Final = (
    "<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>", "<tools>", "</tools>",
    "[TOOL_CALLS]", "[TOOL_RESULTS]", "[/TOOL_RESULTS]", "[AVAILABLE_TOOLS]", "[/AVAILABLE_TOOLS]", "<|python_tag|>",
)  # fmt: skip
MARKS: Final = frozenset(CALL_MARKS) | {mark for pair in REASONING_MARKS for mark in pair}
"""Every spelling that means something to a parser of ours or to a model's training for tools and reasoning."""


class ToolFormat(Enum):
    """How calls are written."""

    HERMES = "hermes"
    """``<tool_call>`` JSON ``</tool_call>``: Hermes, Qwen."""
    LLAMA3 = "llama3"
    """The whole answer is ``{"name": ..., "parameters": ...}``."""
    MISTRAL = "mistral"
    """``[TOOL_CALLS]`` and a JSON array."""
    GENERIC = "generic"
    """As Hermes, for templates that know no tools of a form that we know."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Dialect:
    """What is special about a model's answers.

    Attributes:
        tool_format: How it writes calls.
        reasoning: The marks around its reasoning, if it reasons.
        control_ids: Those marks that are control tokens of the vocabulary, with their ids.
        variables: Names that the template reads.
        system_role: The template takes system messages.
    """

    tool_format: ToolFormat = ToolFormat.GENERIC
    reasoning: tuple[str, str] | None = None
    control_ids: Mapping[str, int]
    variables: frozenset[str] = frozenset()
    system_role: bool = True


def find_dialect(
    template: str | None, control_tokens: Mapping[str, int], other_marks: frozenset[str] = frozenset()
) -> Dialect:
    """Recognise a model's dialect.

    Args:
        template: Source of its chat template.
        control_tokens: Spelling and id of every control token.
        other_marks: Those of :data:`MARKS` that are ordinary tokens of the vocabulary.
    """
    source = template or ""
    variables = _variables(source)
    known = control_tokens.keys() | other_marks
    reasoning = next(
        (pair for pair in REASONING_MARKS if pair[1] in source or (pair[0] in known and pair[1] in known)),
        None,
    )
    return Dialect(
        tool_format=_tool_format(source, variables, control_tokens),
        reasoning=reasoning,
        control_ids={mark: token_id for mark, token_id in control_tokens.items() if mark in MARKS},
        variables=variables,
        # What the templates that have none say when they refuse one.
        system_role="ystem role not supported" not in source,
    )


def _tool_format(source: str, variables: frozenset[str], control_tokens: Mapping[str, int]) -> ToolFormat:
    if "tools" not in variables:
        return ToolFormat.GENERIC
    if "[TOOL_CALLS]" in source:
        # Later templates write the name outside of the JSON.
        return ToolFormat.GENERIC if "[ARGS]" in source else ToolFormat.MISTRAL
    if "<tool_call>" in source:
        # Some write calls as XML inside the same mark.
        return ToolFormat.GENERIC if "<function=" in source or "<arg_key>" in source else ToolFormat.HERMES
    if '"parameters"' in source and ("ipython" in source or "<|python_tag|>" in control_tokens):
        return ToolFormat.LLAMA3
    return ToolFormat.GENERIC


def _variables(source: str) -> frozenset[str]:
    try:
        return frozenset(meta.find_undeclared_variables(TemplateEnvironment().parse(source)))
    except TemplateError:
        return frozenset()  # Whoever compiles the template reports it.
