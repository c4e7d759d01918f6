# SPDX-License-Identifier: Apache-2.0
"""An ordinary request in the loop: n choices that share a prompt and stream their text."""

from collections.abc import Sequence as Seq

from adyton_enclave.engine.detokenizer import TextAssembler
from adyton_enclave.engine.generation import Mailbox
from adyton_enclave.engine.request import (
    Finished,
    FinishReason,
    GenerationRequest,
    TextDelta,
    TokenLogprob,
)
from adyton_enclave.engine.sequence import Group, Phase, Sequence


class Choice(Sequence):
    """One choice of one request. Owned by the loop thread."""

    __slots__ = ("_group", "_text", "index")

    def __init__(self, group: "ChoiceGroup", index: int) -> None:
        """Start with the prompt."""
        request = group.request
        super().__init__(group, (request.first_choice + index,), list(request.prompt_token_ids))
        self._group = group
        self.index = index
        self._text = TextAssembler(request.stop)

    @property
    def n_wanted(self) -> int:
        """Most tokens that may still be drawn."""
        return self.group.request.max_tokens - self.n_generated

    def take(self, token_id: int, piece: bytes | None, detail: TokenLogprob | None) -> Phase:
        """Append a drawn token; post the text that may be shown now, and the end."""
        group = self._group
        self.token_ids.append(token_id)
        group.n_completion += 1
        reason: FinishReason | None = None
        text, details = "", tuple[TokenLogprob, ...]()
        if piece is None:
            reason = "stop"
        else:
            text, details = self._text.push(piece, detail)
            if self._text.stopped:
                reason = "stop"
            elif self.n_generated >= group.request.max_tokens:
                reason = "length"
        if reason is not None:
            tail, tail_details = self._text.finish()
            text, details = text + tail, details + tail_details
        if text or details:
            steps = ((len(text), self.n_generated),)
            group.mailbox.post(TextDelta(index=self.index, text=text, logprobs=details, steps=steps))
        if reason is None:
            return Phase.RUNNING
        group.mailbox.post(Finished(index=self.index, finish_reason=reason, usage=group.usage))
        return Phase.DONE


class ChoiceGroup(Group):
    """The choices of one request. Owned by the loop thread."""

    __slots__ = ("_choices", "_live")

    mailbox: Mailbox

    def __init__(self, request: GenerationRequest, mailbox: Mailbox, deadline_s: float | None) -> None:
        """Create the choices; ``deadline_s`` is on the engine's monotonic clock."""
        super().__init__(request, mailbox, deadline_s)
        first, *others = self._choices = [Choice(self, index) for index in range(request.n)]
        for choice in others:
            # So that the prompt is kept for those that have to wait, and is computed once.
            choice.parent = first
        first.n_unborn = len(others)
        self._live = request.n

    @property
    def sequences(self) -> Seq[Choice]:
        """All choices, in order."""
        return self._choices

    @property
    def width(self) -> int:
        """All choices."""
        return len(self._choices)

    def common(self, _one: Sequence, _other: Sequence, /) -> int:
        """All of the prompt but its last token, which each choice computes for itself."""
        return self.n_prompt - 1

    def forget(self, _sequence: Sequence, /) -> None:
        """Count the choices that are left."""
        self._live -= 1

    @property
    def over(self) -> bool:
        """True when every choice is complete."""
        return not self._live
