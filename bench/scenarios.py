# SPDX-License-Identifier: Apache-2.0
"""What is measured: each scenario loads one server once and returns named figures.

A scenario gives every server the same requests. Sizes follow the model's speed, found by a short calibration, so
that a measurement takes a few seconds with any model; they are the same for all servers and stand in the results.
"""

import itertools
import math
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from generator import Answer, ClientPlan, Outcome, Request
from peers import Peer

CLIENT_COUNTS: Final = (1, 4, 8, 16)
CANDIDATES: Final = 16
BUSY_STREAMS: Final = 7
MIXED_STREAMS: Final = 4
PREFILL_TOKENS: Final = 2000
LONG_PROMPT_TOKENS: Final = 4000
PROBE_TOKENS: Final = 100
SAMPLING: Final[dict[str, object]] = {"temperature": 0.8, "top_k": 40, "top_p": 0.95, "min_p": 0.05}
_QUESTION: Final = "Leo has {n} pens. Mia has {m} more pens than Leo. How many pens does Mia have?"
"""What the shipped model answers in some sixty tokens; models with random weights answer without end."""
_SHORTEST_TOKENS: Final = 800
"""Even the slowest model gets prompts of several micro-batches."""
_TRIAL_TOKENS: Final = 256
_TRIAL_S: Final = 0.5
_SHORT: Final = "Pens?"
_FILLER: Final = "The box in the other room holds the pens that Mia counted before the rest of them came. "

Figures = dict[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """How much each scenario asks for, in tokens unless the name says otherwise."""

    decode_tokens: Mapping[int, int]
    decode_requests: Mapping[int, int]
    prefill_tokens: int
    prefill_prompts: int
    probes: int
    candidate_tokens: int
    long_prompt_tokens: int
    long_prompts: int
    n_ctx: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Trained:
    """What one must know of a model that would end its answers."""

    end_token_id: int


class Prompts:
    """Makes chat requests of a wanted length, no two with a common beginning."""

    def __init__(self, filler_tokens: float, overhead_tokens: float, *, trained: Trained | None) -> None:
        """``filler_tokens`` per filler sentence, beside ``overhead_tokens`` of template and question.

        A trained model is asked something and kept from ending; others get a prompt as short as possible, and
        never end.
        """
        self._trained = trained
        self._filler_tokens = filler_tokens
        self._overhead_tokens = overhead_tokens
        self._serial = itertools.count(1)

    def request(
        self, peer: Peer, *, max_tokens: int, prompt_tokens: int = 0, n: int = 1, delay_s: float = 0.0
    ) -> Request:
        """One request of about ``prompt_tokens``, or just the question."""
        serial = next(self._serial)
        fillers = max(0, round((prompt_tokens - self._overhead_tokens) / self._filler_tokens))
        question = _QUESTION.format(n=serial % 83 + 2, m=serial % 7 + 2) if self._trained else _SHORT
        # The serial number stands first, so that no server can reuse more than the template's first tokens.
        content = f"{serial}. {_FILLER * fillers}{question}" if fillers or not self._trained else question
        body: dict[str, object] = {
            "model": "bench",
            "messages": [{"role": "user", "content": content}],
            "max_tokens": max_tokens,
            "seed": serial,
            "stream": True,
            "stream_options": {"include_usage": True},
            **SAMPLING,
            **peer.extra,
        }
        if self._trained:
            body["logit_bias"] = {str(self._trained.end_token_id): -100}
        if n > 1:
            body["n"] = n
        return Request(body=body, delay_s=delay_s)


def _succeeded(outcome: Outcome) -> list[Answer]:
    """All answers of the clients in front, or an end with the first error."""
    answers = [answer for client in outcome.answers for answer in client]
    for answer in answers:
        if answer.error:
            raise SystemExit(f"a request failed: {answer.error}")
    return answers


def _tokens(answer: Answer) -> int:
    """Tokens generated; a server without usage in its stream sends one token in an event."""
    return answer.completion_tokens or len(answer.text_s)


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that at least ``share`` of all do not exceed."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Meter:
    """CPU time of a server's processes and of the generator over a job."""

    peer: Peer

    def run(self, clients: list[ClientPlan]) -> tuple[Outcome, Figures]:
        before = self.peer.cpu_s()
        outcome = self.peer.generator.run(clients)
        after = self.peer.cpu_s()
        figures = {f"cpu_s_{role}": after[role] - before[role] for role in before}
        return outcome, {**figures, "cpu_s_generator": outcome.cpu_s, "wall_s": outcome.wall_s}


def decode(peer: Peer, prompts: Prompts, sizes: Sizes, *, clients: int) -> Figures:
    """``clients`` streams at once; tokens per second over all, prefill of the short prompts included."""
    plan = [
        ClientPlan(
            requests=[
                prompts.request(peer, max_tokens=sizes.decode_tokens[clients])
                for _ in range(sizes.decode_requests[clients])
            ]
        )
        for _ in range(clients)
    ]
    outcome, figures = _Meter(peer=peer).run(plan)
    tokens = sum(_tokens(answer) for answer in _succeeded(outcome))
    return {**figures, "tokens": tokens, "tokens_per_s": tokens / outcome.wall_s}


def prefill(peer: Peer, prompts: Prompts, sizes: Sizes) -> Figures:
    """Long prompts one after the other, one token each; prompt tokens per second."""
    plan = ClientPlan(
        requests=[
            prompts.request(peer, max_tokens=1, prompt_tokens=sizes.prefill_tokens)
            for _ in range(sizes.prefill_prompts)
        ]
    )
    outcome, figures = _Meter(peer=peer).run([plan])
    tokens = sum(answer.prompt_tokens for answer in _succeeded(outcome))
    return {**figures, "tokens": tokens, "tokens_per_s": tokens / outcome.wall_s}


def first_token(peer: Peer, prompts: Prompts, sizes: Sizes, *, streams: int) -> Figures:
    """Milliseconds from sending a short request to its first text, one at a time beside running streams."""
    probes = [
        prompts.request(
            peer, max_tokens=2, prompt_tokens=PROBE_TOKENS, delay_s=0.02 if number else 0.3 * bool(streams)
        )
        for number in range(sizes.probes)
    ]
    plan = [ClientPlan(requests=probes), *(_endless(peer, prompts, sizes) for _ in range(streams))]
    outcome, figures = _Meter(peer=peer).run(plan)
    answers = _succeeded(outcome)[: sizes.probes]
    waits_ms = [1000 * (answer.text_s[0] - answer.start_s) for answer in answers if answer.text_s]
    if not waits_ms:
        raise SystemExit("no probe was answered with text")
    return {**figures, "median_ms": statistics.median(waits_ms), "p95_ms": percentile(waits_ms, 0.95)}


def candidates(peer: Peer, prompts: Prompts, sizes: Sizes) -> Figures:
    """16 answers to one prompt in one request; tokens per second over all."""
    request = prompts.request(
        peer, max_tokens=sizes.candidate_tokens, prompt_tokens=min(300, sizes.n_ctx // 2), n=CANDIDATES
    )
    outcome, figures = _Meter(peer=peer).run([ClientPlan(requests=[request])])
    answer = _succeeded(outcome)[0]
    # llama-server reports the usage of each candidate for itself, and only the last would be seen.
    tokens = max(len(answer.text_s), answer.completion_tokens)
    return {**figures, "tokens": tokens, "tokens_per_s": tokens / outcome.wall_s}


def mixed(peer: Peer, prompts: Prompts, sizes: Sizes) -> Figures:
    """Gaps between a running stream's texts while long prompts arrive, and how long those prompts take."""
    long = [
        prompts.request(peer, max_tokens=2, prompt_tokens=sizes.long_prompt_tokens, delay_s=0.5)
        for _ in range(sizes.long_prompts)
    ]
    plan = [ClientPlan(requests=long), *(_endless(peer, prompts, sizes) for _ in range(MIXED_STREAMS))]
    outcome, figures = _Meter(peer=peer).run(plan)
    _succeeded(outcome)
    front, *streams = outcome.answers
    windows = [(answer.start_s, answer.text_s[0]) for answer in front if answer.text_s]
    during = list(_gaps_ms(streams, windows))
    if not during or not windows:
        raise SystemExit("the long prompts met no running stream")
    return {
        **figures,
        "prompt_tokens": max(answer.prompt_tokens for answer in front),
        "gap_p99_ms": percentile(during, 0.99),
        "gap_median_ms": statistics.median(during),
        "long_first_token_s": statistics.median(end - start for start, end in windows),
        "stream_tokens_per_s": len(during) / sum(end - start for start, end in windows),
    }


def _endless(peer: Peer, prompts: Prompts, sizes: Sizes) -> ClientPlan:
    tokens = max(32, sizes.n_ctx - 2 * PROBE_TOKENS)
    return ClientPlan(requests=[prompts.request(peer, max_tokens=tokens)], background=True)


def _gaps_ms(streams: Sequence[Sequence[Answer]], windows: Sequence[tuple[float, float]]) -> Iterator[float]:
    """Gaps of all streams that touch one of the windows."""
    for answer in itertools.chain.from_iterable(streams):
        for earlier, later in itertools.pairwise(answer.text_s):
            if any(earlier < end and later > begin for begin, end in windows):
                yield 1000 * (later - earlier)


# --- Calibration --------------------------------------------------------------------------------------


def calibrate(
    peer: Peer, *, n_ctx: int, trained: Trained | None, seconds: float, full: bool
) -> tuple[Prompts, Sizes]:
    """Find out how fast a model is on a server, and choose sizes for measurements of about ``seconds``."""
    trial = Prompts(1.0, 0.0, trained=trained)

    def prompt_of(fillers: int) -> Answer:
        request = trial.request(peer, max_tokens=2, prompt_tokens=fillers)
        return _succeeded(peer.generator.run([ClientPlan(requests=[request])]))[0]

    prompt_of(5)
    few, many = prompt_of(2), prompt_of(10)
    filler_tokens = (many.prompt_tokens - few.prompt_tokens) / 8
    prompts = Prompts(filler_tokens, few.prompt_tokens - 2 * filler_tokens, trained=trained)
    prefill_rate = many.prompt_tokens / max(many.end_s - many.start_s, 1e-3)
    rates = {count: _decode_rate(peer, prompts, count) for count in (1, CANDIDATES)}

    def rate(clients: int) -> float:
        """Between the two that were measured, on a logarithmic scale."""
        share = math.log(clients) / math.log(CANDIDATES)
        return float(rates[1] ** (1 - share) * rates[CANDIDATES] ** share)

    longest = n_ctx // 2
    decode_total = {count: max(24.0, seconds * rate(count) / count) for count in CLIENT_COUNTS}
    decode_tokens = {count: min(round(total), 256, longest) for count, total in decode_total.items()}
    room = n_ctx - 4 * PROBE_TOKENS
    # Only with models so slow that a prompt of full length would take half a minute.
    affordable = math.inf if full else max(_SHORTEST_TOKENS, 6 * seconds * prefill_rate)
    long_tokens = int(min(LONG_PROMPT_TOKENS, room, affordable))
    prefill_tokens = int(min(PREFILL_TOKENS, room, affordable / 2))
    sizes = Sizes(
        decode_tokens=decode_tokens,
        decode_requests={
            count: max(1, round(decode_total[count] / decode_tokens[count])) for count in CLIENT_COUNTS
        },
        prefill_tokens=prefill_tokens,
        prefill_prompts=max(1, round(seconds * prefill_rate / prefill_tokens)),
        probes=max(5, min(20, round(seconds * prefill_rate / PROBE_TOKENS))),
        candidate_tokens=max(16, min(256, round(seconds * rates[CANDIDATES] / CANDIDATES), longest)),
        long_prompt_tokens=long_tokens,
        long_prompts=max(1, round(seconds * prefill_rate / long_tokens)),
        n_ctx=n_ctx,
    )
    return prompts, sizes


def _decode_rate(peer: Peer, prompts: Prompts, clients: int) -> float:
    """Tokens per second over all, counted once every client has begun; longer for fast models."""
    rate, tokens = math.inf, 2
    while tokens < _TRIAL_TOKENS and rate * _TRIAL_S > clients * tokens:
        tokens = min(_TRIAL_TOKENS, 4 * tokens)
        plan = [ClientPlan(requests=[prompts.request(peer, max_tokens=tokens)]) for _ in range(clients)]
        outcome = peer.generator.run(plan)
        answers = _succeeded(outcome)
        begin = max(answer.text_s[0] for answer in answers if answer.text_s)
        seen = sum(time_s > begin for answer in answers for time_s in answer.text_s)
        rate = max(1.0, seen / max(outcome.wall_s - begin, 1e-3))
    return rate


Scenario = Callable[[Peer, Prompts, Sizes], Figures]


def scenarios() -> dict[str, Scenario]:
    """All scenarios by name, in the order of the table."""

    def at(clients: int) -> Scenario:
        return lambda peer, prompts, sizes: decode(peer, prompts, sizes, clients=clients)

    def beside(streams: int) -> Scenario:
        return lambda peer, prompts, sizes: first_token(peer, prompts, sizes, streams=streams)

    return {
        **{f"decode-{count}": at(count) for count in CLIENT_COUNTS},
        "prefill": prefill,
        "first-token": beside(0),
        "first-token-busy": beside(BUSY_STREAMS),
        "n16": candidates,
        "mixed": mixed,
    }
