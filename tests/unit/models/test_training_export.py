# SPDX-License-Identifier: Apache-2.0
"""From training to llama.cpp: learning works, runs resume, and the exported file computes the same."""

import hashlib
import json
import subprocess
import sys
from pathlib import Path
from random import Random  # noqa: TID251 - what the task is drawn with
from typing import Any

import jinja2.sandbox
import numpy as np
import pytest

torch = pytest.importorskip("torch")
gguf = pytest.importorskip("gguf")

from adyton_models.export import (  # noqa: E402
    CHAT_TEMPLATE,
    Labels,
    export_gguf,
    interleave_rotary,
    read_checkpoint,
)
from adyton_models.tasks import generate  # noqa: E402
from adyton_models.tokenizer import PADDING, Tokenizer  # noqa: E402
from adyton_models.training.architecture import Shape, load_weights, rotary_tables, rotate  # noqa: E402
from adyton_models.training.budgeted import learning_rate_factor  # noqa: E402
from adyton_models.training.data import DRILL_EQUATIONS, MAX_ROW_TOKENS, STAGES, Stream, drill_row  # noqa: E402
from adyton_models.training.loop import Plan, Trainer  # noqa: E402
from adyton_models.training.muon import orthogonalise  # noqa: E402

SMALL = {"width": 128, "layers": 2, "heads": 4, "feed_forward": 96, "batch_tokens": 1024, "threads": 1}


def quiet(_share: float, _evaluation: dict[str, Any] | None, _loss: float) -> None:
    """Report nothing."""


def train(out: Path, steps: int, *, resume: bool = False) -> Trainer:
    """A tiny run that is ended by its number of updates."""
    trainer = Trainer(Plan(minutes=10.0, stop_after_steps=steps, **SMALL), out)
    assert trainer.resume() is resume
    trainer.run(quiet)
    return trainer


def render(messages: list[dict[str, object]], *, prompt: bool = True) -> str:
    """The chat template as a serving stack renders it."""
    environment = jinja2.sandbox.ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    return environment.from_string(CHAT_TEMPLATE).render(
        messages=messages, bos_token="<s>", eos_token="</s>", add_generation_prompt=prompt
    )


def test_the_learning_rate_ends_at_zero() -> None:
    """Whatever the budget, the rate rises, stays, and is zero when the time is up."""
    factors = [learning_rate_factor(share / 100, 0.02, 0.6) for share in range(101)]
    assert max(factors) == 1.0
    assert factors[-1] == 0.0
    assert factors[:3] == sorted(factors[:3])
    assert factors[60:] == sorted(factors[60:], reverse=True)


def test_updates_are_orthogonal() -> None:
    """Singular values come near 1, for wide and for tall matrices alike."""
    generator = torch.Generator().manual_seed(1)
    for shape in ((2, 32, 64), (2, 64, 32)):
        values = torch.linalg.svdvals(orthogonalise(torch.randn(shape, generator=generator), 5))
        assert 0.4 < values.min() < values.max() < 1.4


def test_rows_fit_and_padding_weighs_nothing() -> None:
    """In every stage of the curriculum, batches keep to their size and learn nothing from padding."""
    tokenizer = Tokenizer()
    for start, _ in STAGES:
        stream = Stream(tokenizer, seed=1, batch_tokens=2048, prompt_weight=0.1)
        for _ in range(4):
            batch = stream.next(start)
            assert batch.token_ids.shape[1] <= MAX_ROW_TOKENS + 16
            assert batch.token_ids.numel() <= 2048 * 1.2
            assert batch.weights[batch.token_ids[:, 1:] == tokenizer.ids[PADDING]].sum() == 0


def test_the_stream_is_reproducible() -> None:
    """A seed and a pool number give the same batches again, which is what resuming relies on."""
    first, again = (
        Stream(Tokenizer(), seed=3, batch_tokens=1024, prompt_weight=0.0, pool=5) for _ in range(2)
    )
    assert torch.equal(first.next(0.5).token_ids, again.next(0.5).token_ids)


def test_drills_state_true_equations() -> None:
    """A row of bare equations holds only right ones."""
    tokenizer = Tokenizer()
    row = drill_row(tokenizer, Random(1))
    equations = tokenizer.decode(row.token_ids).strip(" ,").split(", ")
    assert len(equations) >= DRILL_EQUATIONS
    for equation in equations:
        left, right = equation.replace("x", "*").replace("/", "//").split(" = ")
        assert eval(left) == int(right)  # noqa: S307 - our own digits and signs


def test_rotary_layouts_agree() -> None:
    """Rotating halves, then comparing queries with keys, equals rotating pairs after the export's reordering."""
    shape = Shape(vocabulary=8, width=32, heads=2, positions=16)
    generator = np.random.default_rng(1)
    weights = [generator.normal(size=(32, 32)).astype(np.float32) for _ in range(2)]
    x = generator.normal(size=(6, 32)).astype(np.float32)
    cosine, sine = (table[:6] for table in rotary_tables(shape))

    def halves(weight: np.ndarray) -> np.ndarray:
        heads = torch.tensor(x @ weight.T).view(1, 6, 2, 16).transpose(1, 2)
        return rotate(heads, cosine, sine)[0].numpy()

    def pairs(weight: np.ndarray) -> np.ndarray:
        heads = (x @ interleave_rotary(weight, 2).T).reshape(6, 2, 16).swapaxes(0, 1)
        turned = (heads[..., 0::2] + 1j * heads[..., 1::2]) * (cosine + 1j * sine).numpy()[:, :8]
        return np.concatenate([turned.real, turned.imag], axis=-1)

    ours, theirs = ([rotated(weight) for weight in weights] for rotated in (halves, pairs))
    np.testing.assert_allclose(
        ours[0] @ ours[1].swapaxes(1, 2), theirs[0] @ theirs[1].swapaxes(1, 2), atol=1e-3
    )


def test_the_chat_template_shows_the_last_problem_alone() -> None:
    """System messages and earlier turns are left out, white space is normalised, nothing fails."""
    asked = {"role": "user", "content": " Eva has\n 3 pears. "}
    expected = "<s><|user|> Eva has 3 pears.<|assistant|>"
    system = {"role": "system", "content": "Be brief."}
    earlier = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ho"}]
    assert render([asked]) == expected
    assert render([system, *earlier, asked]) == expected
    assert render([{"role": "user", "content": [{"type": "text", "text": "Eva has 3 pears."}]}]) == expected
    assert render([asked, {"role": "assistant", "content": "Eva = 3"}], prompt=False) == (
        "<s><|user|> Eva has 3 pears.<|assistant|> Eva = 3</s>"
    )
    assert render([system]) == "<s><|assistant|>"


@pytest.mark.slow
def test_a_run_learns_resumes_and_exports_what_llama_cpp_computes(tmp_path: Path) -> None:
    """A few updates lower the loss; an interrupted run continues; PyTorch and llama.cpp give the same logits."""
    llama_cpp = pytest.importorskip("llama_cpp")
    run = tmp_path / "run"
    train(run, 20)
    trainer = train(run, 60, resume=True)
    assert trainer.progress.steps == 60
    curve = [json.loads(line) for line in (run / "curve.jsonl").read_text().splitlines()]
    assert curve[-1]["loss"] < curve[0]["loss"] < np.log(trainer.tokenizer.trained) + 0.2

    path, twin = tmp_path / "m.gguf", tmp_path / "n.gguf"
    for out in (path, twin):
        export_gguf(run / "checkpoint.pt", out, quantisation="F16", labels=Labels(name="t", description="t"))
    assert hashlib.sha256(path.read_bytes()).digest() == hashlib.sha256(twin.read_bytes()).digest()

    tokenizer = Tokenizer()
    llama = llama_cpp.Llama(str(path), n_ctx=512, n_threads=1, logits_all=True, verbose=False)
    shape, weights, _ = read_checkpoint(run / "checkpoint.pt")
    model = load_weights(shape, weights).eval()
    for problem in generate("test", 1, 3, (2, 4)):
        ids = tokenizer.prompt(problem.text) + tokenizer.encode_known(problem.solution)
        llama.reset()
        llama.eval(ids)
        theirs = np.array(llama.scores[: len(ids), : tokenizer.trained])
        with torch.no_grad():
            ours = model(torch.tensor([ids]))[0].numpy()
        # F16 weights and activations against float32: three decimal digits of the largest logit.
        assert np.abs(ours - theirs).max() < 5e-3 * max(1.0, np.abs(ours).max())
    llama.close()


@pytest.mark.slow
def test_llama_cpp_tokenises_like_the_tokenizer(tmp_path: Path) -> None:
    """Every problem and solution, and text of other kinds, gets the same ids, and comes back unchanged."""
    llama_cpp = pytest.importorskip("llama_cpp")
    run = tmp_path / "run"
    train(run, 1)
    path = tmp_path / "m.gguf"
    export_gguf(run / "checkpoint.pt", path, quantisation="Q8_0", labels=Labels(name="t", description="t"))
    llama = llama_cpp.Llama(str(path), vocab_only=True, verbose=False)
    tokenizer = Tokenizer()
    others = [
        "Hello world! \u00dcn\u00efcode \U0001f389 def f(x):\n\treturn x**2  # ok",
        "   a  b\n\n c",
        "It's Tomato appless 12345 \uff12\uff13 \u00bd x",
        "\u65e5\u672c\u8a9e \u30c6\u30b9\u30c8",
        "a\u00a0b\u3000c\r\n",
        "</s><|assistant|> The answer is: 1",
    ]
    problems = list(generate("train", 9, 2000, (1, 2, 3, 4, 5, 6)))
    for text in [*others, *(f" {p.text}" for p in problems), *(p.solution for p in problems)]:
        ids = llama.tokenize(text.encode(), add_bos=False, special=False)
        assert ids == tokenizer.encode(text)
        assert tokenizer.decode(ids) == text
    for text in others:
        assert llama.detokenize(tokenizer.encode(text)).decode() == text
    llama.close()


@pytest.mark.slow
def test_two_processes_train_one_model_from_the_command_line(tmp_path: Path) -> None:
    """`train --processes 2` ends on time with one checkpoint, a curve and its picture; `export` takes it."""
    run = tmp_path / "run"
    command = [sys.executable, "-m", "adyton_models.cli"]
    arguments = [
        "train",
        "generator",
        "--minutes",
        "0.1",
        "--out",
        str(run),
        "--layers",
        "2",
        "--processes",
        "2",
        "--threads",
        "2",
    ]
    subprocess.run([*command, *arguments], check=True, timeout=240, capture_output=True)
    assert read_checkpoint(run / "checkpoint.pt")[2]["steps"] > 0
    assert (run / "curve.png").stat().st_size > 0
    again = subprocess.run([*command, *arguments], check=False, capture_output=True, text=True)
    assert again.returncode == 2
    assert "--resume" in again.stderr
    out = tmp_path / "m.gguf"
    subprocess.run(
        [*command, "export", str(run / "checkpoint.pt"), "--out", str(out)], check=True, timeout=120
    )
    assert out.read_bytes()[:4] == b"GGUF"
