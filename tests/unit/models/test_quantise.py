# SPDX-License-Identifier: Apache-2.0
"""`quantise`: what is refused, what falls back, and that the report tells a better file from a worse one."""

import json
from pathlib import Path

import gguf
import numpy as np
import pytest
from raw_gguf import EditableModel, split_files
from tiny_gguf import make_tiny_gguf

from adyton_enclave.engine import Evaluation
from adyton_models.cli import main
from adyton_models.divergence import Divergence, diverge, kl_divergence, windows_of
from adyton_models.gguf_facts import read_facts
from adyton_models.model_files import pin_of
from adyton_models.quantisation import misfits, out_path, quantise, stored_as
from adyton_models.quantise_report import Row, as_table
from adyton_models.serving import ServedModel
from adyton_models.speed import compare_speed
from adyton_protocol.errors import ConfigError

WINDOWS = [list(range(70 + start, 130 + start)) for start in range(0, 140, 35)]


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny F16 model with rows of 256, and of 512 in one matrix of each layer."""
    path = tmp_path_factory.mktemp("quantise") / "tiny-F16.gguf"
    return make_tiny_gguf(
        path, quantization=gguf.GGMLQuantizationType.F16, width=256, heads=8, ends=True
    ).path


@pytest.fixture(scope="module")
def uneven(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny F16 model with rows of 64 and 128 only."""
    path = tmp_path_factory.mktemp("quantise") / "uneven-F16.gguf"
    return make_tiny_gguf(path, quantization=gguf.GGMLQuantizationType.F16).path


@pytest.fixture(scope="module")
def files(original: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The original in four types."""
    directory = tmp_path_factory.mktemp("files")
    facts = read_facts(original)
    paths = {name: out_path(original, name, directory) for name in ("Q8_0", "Q6_K", "Q4_K_M", "Q4_0")}
    for name, path in paths.items():
        quantise(facts, name, path, threads=1)
    return paths


def test_each_type_is_smaller_and_what_it_says(files: dict[str, Path], original: Path) -> None:
    """Sizes fall, most numbers have the type, no matrix fell back, and no draft is left behind."""
    sizes = [original.stat().st_size, *(path.stat().st_size for path in files.values())]
    assert sizes[:3] == sorted(sizes[:3], reverse=True)
    assert max(sizes[3:]) < sizes[2]
    assert {name: stored_as(read_facts(path)) for name, path in files.items()} == {
        "Q8_0": "Q8_0", "Q6_K": "Q6_K", "Q4_K_M": "Q4_K", "Q4_0": "Q4_0",
    }  # fmt: skip
    assert all(not misfits(read_facts(path), name) for name, path in files.items())
    assert {path.name[0] for path in next(iter(files.values())).parent.iterdir()} == {"t"}


def test_divergence_orders_types_by_their_precision(files: dict[str, Path], original: Path) -> None:
    """None from itself; then Q8_0 is nearest, Q4_0 far; agreement about the first token goes with it."""
    itself = diverge(original, original, WINDOWS, threads=1)
    assert itself.kl.max() == 0.0
    assert itself.agree.all()
    far = {
        name: diverge(original, files[name], WINDOWS, threads=1).as_json()
        for name in ("Q8_0", "Q6_K", "Q4_0")
    }
    means = [far[name]["kl_mean"] for name in ("Q8_0", "Q6_K", "Q4_0")]
    assert 0 < means[0] < means[1] < means[2]
    assert far["Q8_0"]["top1_agreement"] >= far["Q4_0"]["top1_agreement"]
    assert far["Q8_0"]["tokens"] == sum(len(window) - 1 for window in WINDOWS)
    assert far["Q8_0"]["kl_mean_ci95"][0] <= means[0] <= far["Q8_0"]["kl_mean_ci95"][1]


def test_divergence_is_the_textbook_sum() -> None:
    """For two made-up rows of logits: sum of p log(p / q), not below zero, zero for equal rows."""

    def evaluation(rows: list[list[float]]) -> Evaluation:
        logits = np.array(rows, dtype=np.float32)
        norm = np.log(np.exp(logits.astype(np.float64)).sum(axis=1))
        empty = np.empty((len(rows), 0))
        return Evaluation(
            positions=tuple(range(len(rows))), label_logits=logits, next_logits=logits[:, 0], logsumexp=norm,
            top_ids=empty.astype(np.int64), top_logits=empty.astype(np.float32), hidden=empty.astype(np.float32),
        )  # fmt: skip

    p, q = np.array([0.5, 0.25, 0.25]), np.array([0.25, 0.25, 0.5])
    rows = [np.log(p).tolist(), np.log(p).tolist()]
    found = kl_divergence(evaluation(rows), evaluation([np.log(q).tolist(), rows[1]]))
    assert found[0] == pytest.approx((p * np.log(p / q)).sum(), abs=1e-6)
    assert found[1] == pytest.approx(0.0, abs=1e-6)


def test_windows_keep_every_pair_of_neighbours_within_them() -> None:
    """Pieces follow one another, and a rest of one token predicts nothing."""
    assert windows_of(range(9), 4) == [[0, 1, 2, 3], [4, 5, 6, 7]]
    assert windows_of([1], 4) == []
    means = Divergence(
        kl=np.array([1.0, 1.0, 4.0]), agree=np.ones(3, dtype=np.bool_), windows=(0, 2)
    ).as_json()
    assert means["kl_mean"] == 2.0
    assert means["kl_mean_ci95"] == [1.0, 4.0]


def test_speed_is_a_ratio_of_pairs(files: dict[str, Path], original: Path) -> None:
    """The original's ratios are 1; both speeds are numbers above 0."""
    ours, theirs = compare_speed(original, files["Q8_0"], prompt_tokens=32, rounds=2)
    assert (ours.prefill_ratio, ours.decode_ratio) == (1.0, 1.0)
    assert min(theirs.prefill, theirs.decode, theirs.prefill_ratio, theirs.decode_ratio) > 0


def test_a_type_that_no_matrix_fits_is_refused(
    uneven: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It would be another type under a false name; nothing is written, whatever else was asked for."""
    command = ["quantise", str(uneven), "--to", "Q8_0,Q6_K", "--out", str(tmp_path), "--no-report"]
    assert main(command) == 2
    said = capsys.readouterr().err
    assert "no matrix of this model can be stored as Q6_K" in said
    assert "rows of 64, 128 numbers" in said
    assert list(tmp_path.iterdir()) == []
    assert main([*command, "--allow-fallback", "--json"]) == 0
    written = {each["name"]: each for each in json.loads(capsys.readouterr().out)}
    assert written["Q8_0"]["fallbacks"] == {}
    assert written["Q6_K"]["fallbacks"]["blk.0.attn_q.weight"] == "Q8_0"


def test_matrices_that_fall_back_are_named(tmp_path: Path) -> None:
    """Rows of 256 are Q6_K, those of 512 too; those of 384 are not, and the report says which and how."""
    path = make_tiny_gguf(
        tmp_path / "mixed-F16.gguf", quantization=gguf.GGMLQuantizationType.F16, width=128, heads=8, head=32
    ).path
    facts = read_facts(path)
    made = quantise(facts, "Q6_K", tmp_path / "mixed-Q6_K.gguf", threads=1)
    # 8 heads of 32 make rows of 256 in one matrix of each layer, and the feed-forward's 256 in another.
    assert "blk.0.attn_output.weight" not in made.fallbacks
    assert made.fallbacks["blk.0.attn_q.weight"] == "Q8_0"
    row = Row(
        name="Q6_K",
        file="f",
        size_bytes=1,
        bits_per_number=6.6,
        types={},
        why_inexact=None,
        fallbacks=made.fallbacks,
    )
    assert "blk.0.attn_q.weight" in as_table([row])


def test_what_cannot_be_quantised_is_refused(
    original: Path, files: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Quantised already, the same type, a file that is there, no room to write, no type, no model: a sentence each."""
    out = ["--out", str(tmp_path / "out"), "--no-report"]
    there = out_path(original, "Q8_0", tmp_path)
    there.write_bytes(b"mine")
    (tmp_path / "file").write_bytes(b"")
    for arguments, fault in (
        ([str(files["Q8_0"]), "--to", "Q4_0", *out], "--requantise"),
        ([str(original), "--to", "F16", *out], "is stored as F16 already"),
        ([str(original), "--to", "Q8_0", "--out", str(tmp_path), "--no-report"], "--force replaces it"),
        (
            [str(original), "--to", "Q8_0", "--out", str(tmp_path / "file" / "x"), "--no-report"],
            "cannot make",
        ),
        ([str(tmp_path / "no"), *out], "cannot be read"),
        ([str(there), *out], "not a GGUF file"),
        ([str(original), "--to", "Q8_0", "--out", str(tmp_path / "o"), "--problems", str(there)], "line 1"),
        (
            [str(original), "--to", "Q8_0", "--out", str(tmp_path / "o"), "--text", str(tmp_path / "no")],
            "cannot read",
        ),
    ):
        assert main(["quantise", *arguments]) == 2
        assert fault in capsys.readouterr().err
    assert there.read_bytes() == b"mine"
    with pytest.raises(SystemExit):
        main(["quantise", str(original), "--to", "Q3_X", *out])
    assert main(["quantise", str(files["Q8_0"]), "--to", "Q4_0", *out, "--requantise"]) == 0


def test_no_room_is_found_out_before_writing(original: Path, tmp_path: Path) -> None:
    """A model larger than the disk is refused by its estimated size."""
    from dataclasses import replace  # noqa: PLC0415

    facts = read_facts(original)
    huge = replace(facts, model=replace(facts.model, header=bytearray(1)))

    class Long(bytearray):
        def __len__(self) -> int:
            return 2**62

    huge = replace(huge, model=replace(huge.model, header=Long()))
    with pytest.raises(ConfigError, match="takes about"):
        quantise(huge, "Q8_0", tmp_path / "x.gguf", threads=1)


def test_the_report_has_table_json_and_picture(
    original: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Everything is measured against the original, with paired differences, and written beside the files."""
    pytest.importorskip("matplotlib")
    problems = tmp_path / "p.jsonl"
    problems.write_text(
        "\n".join(
            json.dumps({"problem": f"What is {n}?", "answer": n, "solution": "It is."}) for n in range(3)
        )
    )
    command = [
        "quantise",
        str(original),
        "--to",
        "Q8_0,Q4_0",
        "--out",
        str(tmp_path),
        "--problems",
        str(problems),
    ]
    assert main([*command, "--text-tokens", "100", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert [row["name"] for row in document["rows"]] == ["F16", "Q8_0", "Q4_0"]
    first, second, third = document["rows"]
    assert first["speed"]["decode_ratio"] == 1.0
    assert first["divergence"] is None
    assert second["divergence"]["kl_mean"] < third["divergence"]["kl_mean"]
    assert second["accuracy"]["n"] == 3
    low, high = second["accuracy_difference"][1:]
    assert low <= second["accuracy_difference"][0] <= high
    assert (tmp_path / "tiny-report.png").stat().st_size > 10_000
    table = (tmp_path / "tiny-report.md").read_text()
    assert table.count("\n") == 5
    assert "Q4_0" in table
    assert json.loads((tmp_path / "tiny-report.json").read_text()) == document


def test_a_model_in_two_files_becomes_one(original: Path, files: dict[str, Path], tmp_path: Path) -> None:
    """The parts are read as one model, whose quantised file is the same as that of the whole."""
    model = EditableModel.parse(original.read_bytes())
    names = list(model.tensors)
    paths = [tmp_path / f"two-F16-{number:05}-of-00002.gguf" for number in (1, 2)]
    for path, data in zip(paths, split_files(model, [names[:5], names[5:]]), strict=True):
        path.write_bytes(data)
    assert out_path(paths[0], "Q8_0", tmp_path).name == "two-Q8_0.gguf"
    made = quantise(read_facts(paths[0]), "Q8_0", tmp_path / "two-Q8_0.gguf", threads=1)
    assert pin_of(made.path).weights == pin_of(files["Q8_0"]).weights
    assert diverge(original, paths[0], WINDOWS[:1], threads=1).kl.max() == 0.0
    assert compare_speed(paths[0], made.path, prompt_tokens=16, rounds=1)[1].decode > 0


def test_a_quantised_file_is_served(files: dict[str, Path]) -> None:
    """What is written can be added and asked."""
    with ServedModel(files["Q4_K_M"], n_ctx=128) as model:
        assert model.model.why_inexact is None
        assert model.prompt("Hello")
