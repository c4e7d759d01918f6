# SPDX-License-Identifier: Apache-2.0
"""From problem and steps to the token ids that a scorer reads, piece by piece.

The prefix and each step are tokenised on their own, so that a sequence that grows step by step has the very tokens of
one that is laid out at once. Control tokens come from the adapter alone.

SECURITY: problem and steps are text of callers and of generators. They are tokenised as plain text, and a
user-defined token that plain text could spell is cut in two, so that nobody writes turns or tags.
"""

import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

from adyton_enclave.scoring.adapter import Adapter, NamedToken
from adyton_enclave.scoring.layout import Piece, Slot, Template, TextLayout, TurnsLayout, slots_of
from adyton_enclave.scoring.splitter import tidy
from adyton_protocol.errors import AdapterError, InvalidRequest

_MARKS: Final = {Slot.PROBLEM: "\U0010ff01", Slot.STEP: "\U0010ff02", Slot.TAG: "\U0010ff03"}
"""Stand-ins for what is filled in, while a chat template lays conversations out."""
_MARK: Final = re.compile("([" + "".join(_MARKS.values()) + "])")
_LOOKS_SPECIAL: Final = re.compile(r"<[^<>\s]{1,62}>|\[[A-Z/_]{1,62}\]")


class Vocabulary(Protocol):
    """What framing needs of a model's tokenizer."""

    @property
    def control_tokens(self) -> Mapping[str, int]:
        """Text of every control token and its id."""
        ...

    @property
    def n_vocab(self) -> int:
        """Number of token ids."""
        ...

    @property
    def add_bos(self) -> bool:
        """Whether every text has to begin with that token."""
        ...

    @property
    def bos(self) -> int:
        """The beginning-of-text token; negative when there is none."""
        ...

    def token_text(self, token_id: int) -> str:
        """Text of a token, control tokens spelt out."""
        ...

    def token_ids_of(self, spellings: Sequence[str]) -> Mapping[str, int]:
        """Those spellings that are single user-defined tokens, which plain text can spell."""
        ...

    def tokenize(self, text: str, *, add_special: bool, parse_special: bool) -> list[int]:
        """Token ids of a text."""
        ...

    def tokenize_on(self, text: str) -> list[int]:
        """Token ids of text that goes on after other text."""
        ...


class ScorerModel(Protocol):
    """What framing needs of a loaded model."""

    @property
    def llama(self) -> Vocabulary:
        """Its tokenizer."""
        ...

    def render_trusted(self, messages: Sequence[Mapping[str, str]]) -> str:
        """The text of a conversation by its chat template."""
        ...


@dataclass(frozen=True, slots=True)
class Segment:
    """Token ids of one step, and the indices among them at which the model is asked; -1 is the token before."""

    token_ids: tuple[int, ...] = field(repr=False)
    reads: tuple[int, ...]


class Framer:
    """Lays text out for one scorer. Thread-safe: nothing changes."""

    def __init__(self, adapter: Adapter, model: ScorerModel) -> None:
        """Check the adapter against the model's vocabulary and template.

        Raises:
            AdapterError: A token has another id or text than the adapter says, there is no beginning-of-text token,
                the chat template does not lay turns out one after the other, or the read position lies outside the
                step.
        """
        self._adapter = adapter
        self._vocabulary = vocabulary = model.llama
        labels = (adapter.labels.good, adapter.labels.bad) if adapter.labels else ()
        named = (*((adapter.tag,) if adapter.tag else ()), *labels)
        for token in named:
            _check_token(token, vocabulary)
        layout = adapter.layout
        if isinstance(layout, TurnsLayout):
            layout = _compiled(layout, model)
        if Slot.BOS in layout.prefix and vocabulary.bos < 0:
            raise AdapterError("the adapter asks for {bos}, which the vocabulary lacks")
        self._layout = layout
        templates = (layout.prefix, layout.first_step, layout.step)
        literal = "\n".join(piece for template in templates for piece in template if isinstance(piece, str))
        controls = sorted(vocabulary.control_tokens, key=len, reverse=True)
        self._control = re.compile("|".join(map(re.escape, controls)) or r"(?!)")
        spellings = sorted({*_LOOKS_SPECIAL.findall(literal), *(token.text for token in named)})
        marks = vocabulary.token_ids_of(spellings)
        self._mark = re.compile("|".join(map(re.escape, marks)) or r"(?!)")
        # Any other step is longer than this one, and only before its tag.
        for first in (True, False):
            self.step("0", first=first)

    def prefix(self, problem: str) -> tuple[int, ...]:
        """Token ids of everything before the first step (attacker-controlled text).

        Raises:
            InvalidRequest: The problem is blank.
        """
        text = self._tidied(problem, "problem")
        return tuple(self._tokens(self._layout.prefix, {Slot.PROBLEM: text}, begins=True)[0])

    def step(self, text: str, *, first: bool) -> Segment:
        """Token ids of one step (attacker-controlled text) and of its tag.

        Raises:
            InvalidRequest: The step is blank.
        """
        template = self._layout.first_step if first else self._layout.step
        texts = {Slot.STEP: self._tidied(text, "steps")}
        if self._adapter.kind == "likelihood":
            return self._predicted(template, texts)
        token_ids, tag_at = self._tokens(template, texts, begins=False)
        read_at = tag_at + self._adapter.offset
        if not 0 <= read_at < len(token_ids):
            raise AdapterError("the adapter's read offset lies outside the tokens of a step")
        return Segment(tuple(token_ids), (read_at,))

    def _predicted(self, template: Template, texts: Mapping[Slot, str]) -> Segment:
        """A step whose every token is held against its prediction, but for what stands behind it.

        That is the same whatever the step says, and a model that ends its answer there finds it unlikely.
        """
        behind = template.index(Slot.STEP) + 1
        token_ids, _ = self._tokens(template[:behind], texts, begins=False)
        reads = tuple(range(-1, len(token_ids) - 1))
        return Segment((*token_ids, *self._tokens(template[behind:], {}, begins=False)[0]), reads)

    def _tidied(self, text: str, param: str) -> str:
        tidied = tidy(text, self._adapter.whitespace)
        if not tidied.strip():
            raise InvalidRequest("the problem and its steps must not be blank", param=param)
        return tidied

    def _tokens(
        self, template: Template, texts: Mapping[Slot, str], *, begins: bool
    ) -> tuple[list[int], int]:
        """Token ids of a template, and the index of its tag (0 if it has none).

        Args:
            template: It.
            texts: What to fill in.
            begins: Nothing stands before; text then starts as the vocabulary has texts start.
        """
        token_ids: list[int] = []
        tag_at, run, fresh = 0, "", begins
        for piece in self._pieces(template):
            if isinstance(piece, str):
                run += piece
            elif isinstance(piece, Slot) and piece in texts:
                run += texts[piece]
            else:
                token_ids += self._plain(run, fresh=fresh)
                run = ""
                fresh = piece is not Slot.TAG
                if piece is Slot.TAG:
                    tag_at = len(token_ids)
                token_ids.append(self._single(piece))
        return token_ids + self._plain(run, fresh=fresh), tag_at

    def _pieces(self, template: Template) -> list[str | int | Slot]:
        """A template with its control tokens as ids; what is filled in later is not looked at."""
        pieces: list[str | int | Slot] = []
        for piece in template:
            if isinstance(piece, Slot):
                pieces.append(piece)
                continue
            position = 0
            for match in self._control.finditer(piece):
                pieces += [piece[position : match.start()], self._vocabulary.control_tokens[match.group()]]
                position = match.end()
            pieces.append(piece[position:])
        return pieces

    def _single(self, piece: int | Slot) -> int:
        if isinstance(piece, int):
            return piece
        tag = self._adapter.tag
        return tag.id if tag is not None and piece is Slot.TAG else self._vocabulary.bos

    def _plain(self, text: str, *, fresh: bool) -> list[int]:
        token_ids: list[int] = []
        position = 0
        for match in self._mark.finditer(text):
            # SECURITY: llama.cpp would make the token even of plain text.
            cut = match.start() + 1
            token_ids += self._run(text[position:cut], fresh=fresh and not position)
            position = cut
        return token_ids + self._run(text[position:], fresh=fresh and not position)

    def _run(self, text: str, *, fresh: bool) -> list[int]:
        if not text:
            return []
        if fresh:
            return self._vocabulary.tokenize(text, add_special=False, parse_special=False)
        return self._vocabulary.tokenize_on(text)


def _check_token(token: NamedToken, vocabulary: Vocabulary) -> None:
    if token.id >= vocabulary.n_vocab or vocabulary.token_text(token.id) != token.text:
        raise AdapterError(
            f"token {token.id} of this model's vocabulary has another text than the adapter says"
        )


def _compiled(layout: TurnsLayout, model: ScorerModel) -> TextLayout:
    """The text that a chat template makes of turns, written out.

    Made once and of marks alone, so that no text of a caller ever goes through the template.
    """
    rendered = [_rendered(layout, model, steps) for steps in (1, 2, 3)]
    first = _cut(rendered[0])
    if [slot for slot in slots_of(first) if slot is not Slot.BOS] != [Slot.PROBLEM, Slot.STEP, Slot.TAG]:
        raise AdapterError("the chat template does not keep the turns of the adapter in order")
    extensions = [longer.removeprefix(shorter) for shorter, longer in itertools.pairwise(rendered)]
    step = _cut(extensions[0])
    regular = extensions[0] == extensions[1] and slots_of(step) == [Slot.STEP, Slot.TAG]
    if not regular or not all(rendered[i + 1].startswith(rendered[i]) for i in (0, 1)):
        raise AdapterError("the chat template does not lay out one turn after the other in the same way")
    behind = first.index(Slot.PROBLEM) + 1
    prefix = first[:behind]
    vocabulary = model.llama
    if vocabulary.add_bos and not rendered[0].startswith(vocabulary.token_text(vocabulary.bos)):
        prefix = (Slot.BOS, *prefix)
    return TextLayout(prefix=prefix, first_step=first[behind:], step=step)


def _rendered(layout: TurnsLayout, model: ScorerModel, steps: int) -> str:
    messages = [] if layout.system is None else [{"role": "system", "content": layout.system}]
    for index in range(steps):
        user = layout.user if index else layout.first_user
        messages.append({"role": "user", "content": _marked(user)})
        messages.append({"role": "assistant", "content": _MARKS[Slot.TAG]})
    try:
        return model.render_trusted(messages)
    except InvalidRequest as error:
        raise AdapterError("the chat template refuses the turns of the adapter") from error


def _marked(template: Template) -> str:
    return "".join(piece if isinstance(piece, str) else _MARKS[piece] for piece in template)


def _cut(text: str) -> Template:
    slots = {mark: slot for slot, mark in _MARKS.items()}
    pieces: list[Piece] = [slots.get(part, part) for part in _MARK.split(text) if part]
    return tuple(pieces)
