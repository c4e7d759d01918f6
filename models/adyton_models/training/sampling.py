# SPDX-License-Identifier: Apache-2.0
"""Many solutions at once from a checkpoint: batched generation in PyTorch with a cache of keys and values.

For training data and for rollouts, where throughput counts and bits do not: bfloat16 on a CPU, rows that have ended
are dropped, and several solutions of one problem share the reading of it. What is served is measured with llama.cpp.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count, islice
from pathlib import Path
from random import Random  # noqa: TID251 - reproducible data, no secret

import torch
from torch import Tensor
from torch.nn import functional

from adyton_models.tasks.render import Problem, draw
from adyton_models.tasks.splits import Split
from adyton_models.tokenizer import END, SPECIAL_TOKENS, Tokenizer
from adyton_models.training.architecture import MASKED, Block, Transformer, rotate
from adyton_models.training.data import HARDER, stage_at
from adyton_models.training.sampled import SampledProblem

MAX_POSITIONS = 640
_COMPACT_BELOW = 0.7


@dataclass(frozen=True, slots=True, kw_only=True)
class Draw:
    """How tokens are drawn; the defaults cut nothing off."""

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0

    def choose(self, logits: Tensor, generator: torch.Generator) -> Tensor:
        """One token for each row of logits (rows, vocabulary); greedy at temperature 0."""
        if self.temperature == 0:
            return logits.argmax(-1)
        # As llama.cpp chains them: the cuts look at the distribution before temperature.
        ordered, index = logits.float().sort(-1, descending=True)
        probability = ordered.softmax(-1)
        keep = torch.ones_like(probability, dtype=torch.bool)
        if self.top_k:
            keep[:, self.top_k :] = False
        keep &= probability.cumsum(-1) - probability < self.top_p
        keep &= probability >= self.min_p * probability[:, :1]
        warm = (ordered / self.temperature).masked_fill(~keep, float("-inf")).softmax(-1)
        place = torch.multinomial(warm, 1, generator=generator)
        return index.gather(-1, place)[:, 0]


class _Cache:
    """Keys and values of all rows, and how many positions of each are filled."""

    def __init__(self, model: Transformer, token_ids: Tensor, lengths: Tensor, room: int) -> None:
        self.model = model
        self.lengths = lengths
        self.keys: list[Tensor] = []
        self.values: list[Tensor] = []
        rows, tokens = token_ids.shape
        shape = model.shape
        size = (rows, shape.heads, tokens + room, shape.head_width)
        x: Tensor = model.embedding(token_ids)
        cosine, sine = model.cosine[:tokens], model.sine[:tokens]
        for block in model.blocks:
            assert isinstance(block, Block)  # noqa: S101 - narrows the type
            normed = block.attention_norm(x)
            query, key, value = (
                self._split(layer(normed)) for layer in (block.query, block.key, block.value)
            )
            query, key = rotate(query, cosine, sine), rotate(key, cosine, sine)
            mixed = functional.scaled_dot_product_attention(query, key, value.to(query.dtype), is_causal=True)
            x = self._finish(block, x, mixed)
            for store, new in ((self.keys, key), (self.values, value)):
                cache = torch.zeros(size, dtype=torch.bfloat16)
                cache[:, :, :tokens] = new
                store.append(cache)
        last = x[torch.arange(rows), lengths - 1]
        self.logits = functional.linear(model.final_norm(last), model.embedding.weight)

    def _split(self, x: Tensor) -> Tensor:
        rows, tokens, _ = x.shape
        return x.view(rows, tokens, self.model.shape.heads, -1).transpose(1, 2)

    @staticmethod
    def _finish(block: Block, x: Tensor, mixed: Tensor) -> Tensor:
        rows, _, tokens, _ = mixed.shape
        x = x + block.attention_out(mixed.transpose(1, 2).reshape(rows, tokens, -1))
        normed = block.feed_forward_norm(x)
        fed: Tensor = block.down(functional.silu(block.gate(normed)) * block.up(normed))
        return x + fed

    def keep(self, rows: Tensor) -> None:
        """Go on with these rows only, in this order; a row may be named several times."""
        self.keys = [each[rows] for each in self.keys]
        self.values = [each[rows] for each in self.values]
        self.lengths = self.lengths[rows]
        self.logits = self.logits[rows]

    def push(self, token_ids: Tensor) -> None:
        """Append one token to every row."""
        model, rows = self.model, torch.arange(len(token_ids))
        used = int(self.lengths.max()) + 1
        x: Tensor = model.embedding(token_ids[:, None])
        cosine, sine = model.cosine[self.lengths][:, None, None], model.sine[self.lengths][:, None, None]
        hidden = torch.arange(used)[None, :] > self.lengths[:, None]
        bias = torch.zeros(hidden.shape).masked_fill(hidden, MASKED)[:, None, None]
        for block, keys, values in zip(model.blocks, self.keys, self.values, strict=True):
            assert isinstance(block, Block)  # noqa: S101 - narrows the type
            normed = block.attention_norm(x)
            query, key, value = (
                self._split(layer(normed)) for layer in (block.query, block.key, block.value)
            )
            query, key = rotate(query, cosine, sine), rotate(key, cosine, sine)
            keys[rows, :, self.lengths] = key[:, :, 0].to(keys.dtype)
            values[rows, :, self.lengths] = value[:, :, 0].to(values.dtype)
            mixed = functional.scaled_dot_product_attention(
                query.to(keys.dtype), keys[:, :, :used], values[:, :, :used], attn_mask=bias.to(keys.dtype)
            )
            x = self._finish(block, x, mixed)
        self.lengths = self.lengths + 1
        self.logits = functional.linear(model.final_norm(x[:, 0]), model.embedding.weight)


@torch.no_grad()
def continue_tokens(
    model: Transformer,
    tokenizer: Tokenizer,
    starts: Sequence[Sequence[int]],
    how: Draw,
    *,
    copies: int,
    seed: int,
    max_tokens: int = 400,
) -> list[list[list[int]]]:
    """For each row of token ids, `copies` continuations, to the end token (left out) or the length limit."""
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.tensor([len(start) for start in starts])
    token_ids = torch.zeros((len(starts), int(lengths.max())), dtype=torch.long)
    for index, start in enumerate(starts):
        token_ids[index, : len(start)] = torch.tensor(start)
    end = tokenizer.ids[END]
    barred = [index for index in range(len(SPECIAL_TOKENS)) if index != end]
    room = min(max_tokens, MAX_POSITIONS - int(lengths.max()))
    written: list[list[int]] = [[] for _ in range(len(starts) * copies)]
    with torch.autocast("cpu", torch.bfloat16):
        cache = _Cache(model, token_ids, lengths, room)
        owners = torch.arange(len(starts) * copies)
        cache.keep(owners // copies)
        running = torch.ones(len(owners), dtype=torch.bool)
        for _ in range(room):
            logits = cache.logits.float()
            logits[:, barred] = float("-inf")
            chosen = how.choose(logits, generator)
            running &= chosen != end
            for owner, token, alive in zip(owners.tolist(), chosen.tolist(), running.tolist(), strict=True):
                if alive:
                    written[owner].append(token)
            alive_rows = running.nonzero()[:, 0]
            if len(alive_rows) == 0:
                break
            if len(alive_rows) < _COMPACT_BELOW * len(owners):
                cache.keep(alive_rows)
                owners, chosen, running = owners[alive_rows], chosen[alive_rows], running[alive_rows]
            cache.push(chosen)
    return [written[index * copies : (index + 1) * copies] for index in range(len(starts))]


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleRun:
    """Which problems are sampled, and how many solutions of each."""

    split: Split
    seed: int = 1
    problems: int = 1000
    copies: int = 4
    batch: int = 64
    """Problems at once."""
    max_steps: int = 10
    max_tokens: int = 400


def mixed_problems(split: Split, seed: int, *, max_steps: int = 10, first: int = 0) -> Iterator[Problem]:
    """Endless problems of a split, step counts and kinds as in the last stage of a generator's training.

    Each problem depends on its own number alone, so that an interrupted run goes on at `first`.
    """
    stage = stage_at(1.0, max_steps)
    share = HARDER[-1][1]
    for number in count(first):
        rng = Random(f"sampled problems|{split}|{seed}|{number}")
        steps = rng.choices(list(stage), weights=list(stage.values()))[0]
        dice = rng.random()
        yield draw(
            rng,
            split,
            steps,
            distractors=rng.randint(1, 2) if dice < 1.25 * share else 0,
            shuffle=share <= dice < 2.25 * share,
        )


def sample_problems(
    model: Transformer,
    problems: Sequence[Problem],
    how: Draw,
    *,
    copies: int,
    seed: int,
    max_tokens: int = 400,
) -> list[SampledProblem]:
    """`copies` solutions of each of a few problems."""
    tokenizer = Tokenizer()
    prompts = [tokenizer.prompt(problem.text) for problem in problems]
    written = continue_tokens(model, tokenizer, prompts, how, copies=copies, seed=seed, max_tokens=max_tokens)
    return [
        SampledProblem(
            problem=problem.text, steps=problem.steps, solutions=tuple(tokenizer.decode(ids) for ids in each)
        )
        for problem, each in zip(problems, written, strict=True)
    ]


def sample_file(
    model: Transformer,
    run: SampleRun,
    how: Draw,
    out: Path,
    report: Callable[[int], None] = lambda _done: None,
) -> None:
    """Bring the file `out` to `run.problems` lines of `SampledProblem`, a batch at a time.

    Problems are sorted by length within a few batches, so that little is padded. A file that was interrupted is cut
    back to whole groups of batches and gone on with. `report` gets the number of problems after each batch.
    """
    group = 4 * run.batch
    text = out.read_text(encoding="utf-8") if out.exists() else ""
    lines = text[: text.rfind("\n") + 1].splitlines(keepends=True)
    done = len(lines) // group * group if len(lines) < run.problems else run.problems
    out.write_text("".join(lines[:done]), encoding="utf-8")
    model.eval()
    with out.open("a", encoding="utf-8") as file:
        while done < run.problems:
            size = min(group, run.problems - done)
            stream = mixed_problems(run.split, run.seed, max_steps=run.max_steps, first=done)
            pool = sorted(islice(stream, size), key=lambda problem: len(problem.text))
            for start in range(0, size, run.batch):
                part = pool[start : start + run.batch]
                seed = run.seed * 1_000_003 + done + start
                for sampled in sample_problems(
                    model, part, how, copies=run.copies, seed=seed, max_tokens=run.max_tokens
                ):
                    file.write(sampled.as_line())
                file.flush()
                report(done + start + len(part))
            done += size


__all__ = ["Draw", "SampleRun", "continue_tokens", "mixed_problems", "sample_file", "sample_problems"]
