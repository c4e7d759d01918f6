# SPDX-License-Identifier: Apache-2.0
"""Chat messages to token ids, by the template in the GGUF, without letting a message forge a control token.

SECURITY: a template is text, and so is ``<|assistant|>`` in a caller's message. Whoever renders first and
tokenises afterwards with special tokens on lets every caller write turns in anybody's name. Here a control
token can neither begin nor end inside caller text: before rendering, every character of caller text that begins
or ends the spelling of some control token is replaced by a stand-in (a private-use character that occurs nowhere
else). After rendering, control tokens are looked for, which then are the template's own; the rest goes back to
its real characters and is tokenised with special tokens off. Roles, which templates like to paste into control
tokens, must be plain words. Names of tools, their descriptions and schemas, arguments and results of calls are
caller text like any other.

Marks of tool calls and reasoning (``<tool_call>``, ``</think>``) are user-defined tokens in many vocabularies, which
llama.cpp makes even of plain text. They are treated in the same way: the template's own become tokens, and where
caller text spells one, it is cut in two before it is tokenised. In a vocabulary that has no token for a mark it is
text to the model wherever it comes from.

The price: a template that inspects message text for such characters (say, to cut ``</think>`` out of earlier
answers) does not see them. Whoever calls should cut such things first.

The template itself is covered by the model's digest and trusted not to be hostile; the sandbox is a second
line. It has no clock, no randomness and no I/O, so that equal messages give equal tokens for ever.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from jinja2 import TemplateError

from adyton_enclave.engine.dialect import MARKS
from adyton_enclave.engine.llama import LlamaModel
from adyton_enclave.engine.template_environment import Refused, TemplateEnvironment
from adyton_enclave.engine.template_limits import budget
from adyton_protocol.errors import ConfigError, InvalidRequest

MAX_TEMPLATE_CHARS: Final = 256 * 1024
MAX_RENDERED_CHARS: Final = 16 * 1024 * 1024
MAX_DEPTH: Final = 32
_ROLE: Final = re.compile(r"[a-z][a-z_]{0,31}")
_STAND_INS: Final = range(0x100000, 0x10FFFE)
"""Plane 16, private use: in practice in nobody's text; what does occur in a request is skipped."""


class ChatTemplate:
    """The chat template of one model. Thread-safe: rendering changes nothing."""

    def __init__(self, source: str, model: LlamaModel) -> None:
        """Compile the template.

        Raises:
            ConfigError: It is too long or no valid Jinja.
        """
        if len(source) > MAX_TEMPLATE_CHARS:
            raise ConfigError(f"the chat template has more than {MAX_TEMPLATE_CHARS} characters")
        try:
            self._template = TemplateEnvironment().from_string(source)
        except TemplateError as error:
            raise ConfigError(f"the chat template is invalid: {error}") from error
        except (RecursionError, MemoryError, SyntaxError, ValueError, OverflowError) as error:
            # What Jinja's parser and Python's compiler say to a nesting that is too deep for them.
            raise ConfigError("the chat template cannot be compiled") from error
        self._model = model
        marks = model.token_ids_of(MARKS - model.control_tokens.keys())
        self._controls = {**model.control_tokens, **marks}
        self._mark = re.compile("|".join(map(re.escape, marks)) or r"(?!)")
        spellings = sorted(self._controls, key=len, reverse=True)
        self._control = re.compile("|".join(map(re.escape, spellings)) or r"(?!)")
        self._edges = frozenset("".join(spelling[0] + spelling[-1] for spelling in spellings))
        self._source_characters = frozenset(source)

    def apply(
        self,
        messages: Sequence[Mapping[str, object]],
        *,
        tools: Sequence[Mapping[str, object]] | None = None,
        add_generation_prompt: bool = True,
        options: Mapping[str, object] | None = None,
    ) -> list[int]:
        """Token ids of a conversation (attacker-controlled).

        Args:
            messages: OpenAI messages; content may be a string or a list of text parts.
            tools: OpenAI tool definitions, for templates that take them.
            add_generation_prompt: End with the opening of the assistant's turn.
            options: More variables for the template, JSON values.

        Raises:
            InvalidRequest: A role is no word, a part is no text, or the template refuses the conversation.
        """
        normal = [_normalise(message, index) for index, message in enumerate(messages)]
        stand_ins = self._stand_ins((normal, tools, options))
        table = str.maketrans(stand_ins)
        # What the template itself decides by comes last, so that no option replaces it. Names and roles, which
        # templates compare with, are plain words of ours; everything else that a caller wrote is translated.
        rendered = self._render(
            {
                **{str(name): _translate(value, table) for name, value in (options or {}).items()},
                "messages": [
                    {
                        **_translate(message, table),
                        "role": message["role"],
                        "content": _translate(message["content"], table),
                    }
                    for message in normal
                ],
                # Left out when there are none: templates ask whether it is defined, and some iterate over it.
                **({} if tools is None else {"tools": _translate(tools, table)}),
                "bos_token": self._model.token_text(self._model.bos),
                "eos_token": self._model.token_text(self._model.eos),
                "add_generation_prompt": add_generation_prompt,
            }
        )
        return self._tokenize(rendered, str.maketrans({v: k for k, v in stand_ins.items()}))

    def render_trusted(self, messages: Sequence[Mapping[str, str]]) -> str:
        """The text of a conversation that is nobody's but the operator's, without an opening for an answer.

        Raises:
            InvalidRequest: The template refuses the conversation.
        """
        return self._render(
            {
                "messages": [dict(message) for message in messages],
                "bos_token": self._model.token_text(self._model.bos),
                "eos_token": self._model.token_text(self._model.eos),
                "add_generation_prompt": False,
            }
        )

    def _stand_ins(self, untrusted: object) -> dict[str, str]:
        """A private-use character for every edge character, none of which occurs in the request."""
        taken = _characters(untrusted) | self._source_characters
        unused = (chr(code) for code in _STAND_INS if chr(code) not in taken)
        try:
            return {edge: next(unused) for edge in sorted(self._edges)}
        except StopIteration:
            # A generator that stops inside a comprehension surfaces as StopIteration here.
            raise InvalidRequest("the messages use up all private-use characters", param="messages") from None

    def _render(self, variables: Mapping[str, object]) -> str:
        pieces: list[str] = []
        length = 0
        try:
            with budget():
                for piece in self._template.generate(variables):
                    length += len(piece)
                    if length > MAX_RENDERED_CHARS:
                        break
                    pieces.append(piece)
        except Exception as error:  # noqa: BLE001  # a template is a program and may fail in any way
            # SECURITY: not chained and not quoted; templates put messages into their own errors.
            kind = "refuses" if isinstance(error, Refused) else "cannot render"
            raise InvalidRequest(
                f"the model's chat template {kind} this conversation", param="messages"
            ) from None
        if length > MAX_RENDERED_CHARS:
            raise InvalidRequest("the rendered conversation is too long", param="messages")
        return "".join(pieces)

    def _tokenize(self, rendered: str, originals: Mapping[int, str]) -> list[int]:
        """Tokenise the template's control tokens as such and everything between them as plain text."""
        token_ids: list[int] = []
        position = 0
        for match in self._control.finditer(rendered):
            token_ids += self._plain(rendered[position : match.start()], originals)
            token_ids.append(self._controls[match.group()])
            position = match.end()
        token_ids += self._plain(rendered[position:], originals)
        if self._model.add_bos and token_ids[:1] != [self._model.bos]:
            token_ids.insert(0, self._model.bos)
        return token_ids

    def _plain(self, text: str, originals: Mapping[int, str]) -> list[int]:
        if not text:
            return []
        token_ids: list[int] = []
        plain = text.translate(originals)
        position = 0
        for match in self._mark.finditer(plain):
            # SECURITY: only a caller can have spelt it here, so it must not become the token.
            cut = match.start() + 1
            token_ids += self._model.tokenize(plain[position:cut], add_special=False, parse_special=False)
            position = cut
        token_ids += self._model.tokenize(plain[position:], add_special=False, parse_special=False)
        return token_ids


def _normalise(message: Mapping[str, object], index: int) -> dict[str, object]:
    """Check the role and join text parts, which is what every text template expects."""
    role = message.get("role")
    if not isinstance(role, str) or not _ROLE.fullmatch(role):
        raise InvalidRequest("a role is a lower-case word", param=f"messages[{index}].role")
    content = message.get("content")
    if isinstance(content, list):
        content = "".join(_text_of(part, index) for part in content)
    if content is not None and not isinstance(content, str):
        raise InvalidRequest(
            "content is a string or a list of text parts", param=f"messages[{index}].content"
        )
    return {**message, "role": role, "content": content}


def _text_of(part: object, index: int) -> str:
    if isinstance(part, Mapping) and part.get("type") == "text" and isinstance(text := part.get("text"), str):
        return text
    raise InvalidRequest("only text parts are supported", param=f"messages[{index}].content")


def _translate(value: Any, table: Mapping[int, str], depth: int = 0) -> Any:
    """Translate every string in a JSON value, keys included."""
    if depth > MAX_DEPTH:
        raise InvalidRequest("the messages are nested too deeply", param="messages")
    match value:
        case str():
            return value.translate(table)
        case Mapping():
            return {
                str(key).translate(table): _translate(item, table, depth + 1) for key, item in value.items()
            }
        case list() | tuple():
            return [_translate(item, table, depth + 1) for item in value]
        case _:
            return value


def _characters(value: object, depth: int = 0) -> frozenset[str]:
    """Every character of every string in a JSON value."""
    if depth > MAX_DEPTH:
        raise InvalidRequest("the messages are nested too deeply", param="messages")
    match value:
        case str():
            return frozenset(value)
        case Mapping():
            parts = [*value.keys(), *value.values()]
        case list() | tuple():
            parts = list(value)
        case _:
            return frozenset()
    return frozenset().union(*(_characters(part, depth + 1) for part in parts))
