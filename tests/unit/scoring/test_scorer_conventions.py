# SPDX-License-Identifier: Apache-2.0
"""Each convention, against a slow reference that lays the whole text out at once, on llama.cpp alone."""

import ctypes
from collections.abc import Callable, Sequence
from typing import Any

import jinja2
import llama_cpp
import numpy as np
import pytest
from tiny_scorers import LLAMA3_TEMPLATE, TinyScorer

from adyton_enclave.scoring import Scorer

Start = Callable[..., Scorer]
PROBLEM = "the pan has 3 ants. How many legs in all?"
STEPS = {
    "adyton-words-scorer": (" Eva = 12", " Tom: Eva = 12, 12 + 9 = 21, Tom = 21", " The answer is: 21"),
    "math-shepherd": ("Step 1: the ants are 3.", "Step 2: 3 + 3 = 6.", "Step 3: the answer is 6."),
    "rlhflow": ("the ants are 3", "the sum is\n3 + 3 = 6", "the answer - 6"),
    "skywork": ("the ants are 3", "an ant + an ant", "the answer is 6"),
    "qwen2.5-math-prm": ("the ants are 3", "an ant\n+ an ant", "the answer is 6"),
}


class Reference:
    """A model under llama.cpp, one sequence at a time, every token an output."""

    def __init__(self, tiny: TinyScorer) -> None:
        params = llama_cpp.llama_model_default_params()
        params.n_gpu_layers = 0
        self.model: Any = llama_cpp.llama_model_load_from_file(str(tiny.path).encode(), params)
        self.vocab: Any = llama_cpp.llama_model_get_vocab(self.model)
        self.n_vocab = llama_cpp.llama_vocab_n_tokens(self.vocab)
        self.width = llama_cpp.llama_model_n_embd(self.model)

    def tokenize(self, text: str, *, special: bool = False, begin: bool = False) -> list[int]:
        """Token ids of a text in one piece."""
        data = text.encode()
        buffer = (ctypes.c_int32 * (len(data) + 8))()
        count = llama_cpp.llama_tokenize(self.vocab, data, len(data), buffer, len(buffer), begin, special)
        return list(buffer[:count])

    def compute(self, token_ids: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
        """Logits and hidden states of all tokens."""
        params = llama_cpp.llama_context_default_params()
        params.n_ctx = params.n_batch = params.n_ubatch = 512
        params.n_threads = params.n_threads_batch = 1
        params.type_v = llama_cpp.GGML_TYPE_Q8_0
        params.flash_attn_type = llama_cpp.LLAMA_FLASH_ATTN_TYPE_ENABLED
        params.embeddings = True
        params.pooling_type = llama_cpp.LLAMA_POOLING_TYPE_NONE
        context: Any = llama_cpp.llama_init_from_model(self.model, params)
        batch = llama_cpp.llama_batch_init(512, 0, 1)
        batch.n_tokens = len(token_ids)
        for at, token_id in enumerate(token_ids):
            batch.token[at], batch.pos[at], batch.n_seq_id[at] = token_id, at, 1
            batch.seq_id[at][0], batch.logits[at] = 0, 1
        assert llama_cpp.llama_decode(context, batch) == 0
        shape = (len(token_ids),)
        logits = np.ctypeslib.as_array(llama_cpp.llama_get_logits(context), (*shape, self.n_vocab)).copy()
        hidden = np.ctypeslib.as_array(llama_cpp.llama_get_embeddings(context), (*shape, self.width)).copy()
        llama_cpp.llama_batch_free(batch)
        llama_cpp.llama_free(context)
        return logits, hidden


def _softmax(logits: np.ndarray) -> float:
    exact = np.exp(logits.astype(np.float64))
    return float(exact[0] / exact.sum())


def _by_head(hidden: np.ndarray, layers: Sequence[tuple[np.ndarray, np.ndarray]]) -> float:
    values = hidden.astype(np.float64)
    for index, (weight, bias) in enumerate(layers):
        values = weight @ (np.maximum(values, 0) if index else values) + bias
    if len(values) == 1:
        return float(1 / (1 + np.exp(-values[0])))
    return _softmax(values[::-1])


def _adyton_words(reference: Reference, _tiny: TinyScorer, steps: Sequence[str]) -> list[float]:
    text = f"<s><|user|> {PROBLEM}<|assistant|>" + "".join(f" {step.strip()}\n<step>" for step in steps)
    token_ids = reference.tokenize(text, special=True)
    logits, _ = reference.compute(token_ids)
    return [_softmax(logits[at][[7, 8]]) for at, token_id in enumerate(token_ids) if token_id == 6]


def _math_shepherd(reference: Reference, _tiny: TinyScorer, steps: Sequence[str]) -> list[float]:
    token_ids = reference.tokenize(f"{PROBLEM} " + "\n".join(f"{step} ки" for step in steps), begin=True)
    logits, _ = reference.compute(token_ids)
    return [_softmax(logits[at][[648, 387]]) for at, token_id in enumerate(token_ids) if token_id == 12902]


def _rlhflow(reference: Reference, _tiny: TinyScorer, steps: Sequence[str]) -> list[float]:
    template = jinja2.Environment(autoescape=False).from_string(LLAMA3_TEMPLATE)  # noqa: S701
    messages: list[dict[str, str]] = []
    scores = []
    for index, step in enumerate(steps):
        messages.append({"role": "user", "content": step if index else f"{PROBLEM} {step}"})
        messages.append({"role": "assistant", "content": "+"})
        text = template.render(messages=messages, bos_token="<|begin_of_text|>", add_generation_prompt=False)
        logits, _ = reference.compute(reference.tokenize(text, special=True))
        scores.append(_softmax(logits[-3][[10, 12]]))
    return scores


def _skywork(reference: Reference, tiny: TinyScorer, steps: Sequence[str]) -> list[float]:
    token_ids = [300, *reference.tokenize(PROBLEM + "\n")]
    flags = []
    for step in steps:
        token_ids += [*reference.tokenize(step), 198]
        flags.append(len(token_ids) - 1)
    _, hidden = reference.compute(token_ids)
    return [_by_head(hidden[at], tiny.layers) for at in flags]


def _qwen(reference: Reference, tiny: TinyScorer, steps: Sequence[str]) -> list[float]:
    text = (
        "<|im_start|>system\nPlease reason step by step, and put your final answer within \\boxed{}.<|im_end|>\n"
        f"<|im_start|>user\n{PROBLEM}<|im_end|>\n<|im_start|>assistant\n"
        + "<extra_0>".join(steps)
        + "<extra_0><|im_end|><|endoftext|>"
    )
    token_ids = reference.tokenize(text, special=True)
    _, hidden = reference.compute(token_ids)
    return [_by_head(hidden[at], tiny.layers) for at, token_id in enumerate(token_ids) if token_id == 151651]


REFERENCES = {
    "adyton-words-scorer": _adyton_words,
    "math-shepherd": _math_shepherd,
    "rlhflow": _rlhflow,
    "skywork": _skywork,
    "qwen2.5-math-prm": _qwen,
}


async def test_scores_are_those_of_the_convention(tiny: TinyScorer, start: Start) -> None:
    """What the shipped adapter gives is what whoever trained such a model computes, step for step."""
    expected = REFERENCES[tiny.name](Reference(tiny), tiny, STEPS[tiny.name])
    assert len(expected) == 3
    scores, usage = await start(tiny).score(PROBLEM, STEPS[tiny.name])
    assert scores == pytest.approx(expected, abs=2e-4)
    # They differ enough to be told apart, or the comparison would say nothing.
    assert np.ptp(scores) > 0.01
    assert usage.completion_tokens == 0
    assert usage.prompt_tokens > 20
