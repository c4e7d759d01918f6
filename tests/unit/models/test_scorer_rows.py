# SPDX-License-Identifier: Apache-2.0
"""What a scorer learns from: wrong lines that are wrong, trees that compute what their paths compute."""

from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path
from random import Random  # noqa: TID251 - what the task is drawn with

import pytest

torch = pytest.importorskip("torch")

from adyton_models.flops import SolutionSize, flops_share, layer_weights  # noqa: E402
from adyton_models.tasks import Split, generate, label_steps  # noqa: E402
from adyton_models.tokenizer import STEP, Tokenizer  # noqa: E402
from adyton_models.training.architecture import Shape, Transformer  # noqa: E402
from adyton_models.training.corruptions import corrupt, right_lines  # noqa: E402
from adyton_models.training.planted import plant_heads  # noqa: E402
from adyton_models.training.sampled import SampledProblem, SampleFiles, lines_of, read_samples  # noqa: E402
from adyton_models.training.sampling import (  # noqa: E402
    Draw,
    SampleRun,
    continue_tokens,
    mixed_problems,
    sample_file,
)
from adyton_models.training.scorer import tag_logits  # noqa: E402
from adyton_models.training.scorer_rows import (  # noqa: E402
    UNKNOWN,
    FaultFinder,
    Node,
    add_corruptions,
    add_solution,
    batch_rows,
    lay_out,
)
from adyton_models.training.slicing import slice_model  # noqa: E402

TOKENIZER = Tokenizer()
PROBLEMS = list(generate("train", 5, 40, (1, 3, 6), distractors=1))


def tree(index: int, share: float = 1.0) -> tuple[Node, str]:
    """A problem's tree of its solution and wrong lines beside it, and the problem's text."""
    problem = PROBLEMS[index]
    root = Node(line="", good=1.0)
    add_solution(root, problem.facts(), problem.solution)
    add_corruptions(root, problem.facts(), Random(index), share)
    return root, problem.text


def small_model() -> Transformer:
    """A planted model whose weights are disturbed, so that attention differs everywhere."""
    model = Transformer(Shape(vocabulary=TOKENIZER.trained, width=128, layers=3, heads=4, feed_forward=64))
    plant_heads(model, TOKENIZER)
    torch.manual_seed(3)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(0.05 * torch.randn_like(weight))
    return model.eval()


def test_corrupted_lines_are_wrong_and_right_lines_right() -> None:
    """The checker refuses every corruption where it stands, and accepts every line that is said to be right."""
    rng = Random(1)
    for problem in PROBLEMS:
        facts, lines = problem.facts(), lines_of(problem.solution)
        for index, line in enumerate(lines):
            before = lines[:index]
            for _ in range(4):
                wrong = corrupt(rng, facts, line, before)
                assert wrong is not None
                assert not label_steps(facts, "\n".join([*before, wrong]))[-1]
            stated = frozenset(each.split()[0].rstrip(":") for each in before)
            accepted = right_lines(facts, stated)
            assert line in accepted
            for other in accepted:
                assert label_steps(facts, "\n".join([*before, other]))[-1]


def test_trees_hold_one_wrong_line_beside_each_right_one() -> None:
    """Right lines have children, wrong ones have none, and each line is asked about once."""
    root, text = tree(4)
    row = lay_out(TOKENIZER, text, root, PROBLEMS[4].facts())
    asked = [tag for tag in row.tags if tag != UNKNOWN]
    lines = len(lines_of(PROBLEMS[4].solution))
    assert asked.count(1.0) == lines
    assert asked.count(0.0) == lines
    steps = [token == TOKENIZER.ids[STEP] for token in row.token_ids]
    assert steps == [tag != UNKNOWN for tag in row.tags]


def test_only_right_text_is_learnt_as_text() -> None:
    """What follows a token is a target on the right path alone, and never in the problem or for the tag's token."""
    root, text = tree(7)
    facts = PROBLEMS[7].facts()
    row = lay_out(TOKENIZER, text, root, facts)
    step = TOKENIZER.ids[STEP]
    wrong = {row.segments[at] for at, tag in enumerate(row.tags) if tag == 0}
    for at, following in enumerate(row.following):
        if following != UNKNOWN:
            assert row.segments[at] not in wrong
            assert following != step
    prompt = len(TOKENIZER.prompt(text))
    assert all(target == UNKNOWN for target in row.following[: prompt - 1])
    assert row.following[prompt - 1] != UNKNOWN


def test_flags_turn_at_the_first_wrong_token() -> None:
    """Up to the fault a wrong line is a beginning of a right one; with it, of none."""
    rng = Random(2)
    for problem in PROBLEMS[:12]:
        facts, lines = problem.facts(), lines_of(problem.solution)
        finder = FaultFinder(facts, TOKENIZER)
        for index, line in enumerate(lines):
            stated = frozenset(each.split()[0].rstrip(":") for each in lines[:index])
            wrong = corrupt(rng, facts, line, lines[:index])
            assert wrong is not None
            ids = TOKENIZER.encode_known(f" {wrong}\n")
            at = finder.first_fault(wrong, stated)
            right = [TOKENIZER.encode_known(f" {other}\n") for other in right_lines(facts, stated)]
            assert any(other[:at] == ids[:at] for other in right)
            assert not any(other[: at + 1] == ids[: at + 1] for other in right)


def torch_judge(model: Transformer) -> Callable[[str, Sequence[Sequence[str]]], list[list[float]]]:
    """Judges a problem's solutions in one pass, laid out as one tree."""

    @torch.no_grad()
    def judge(problem: str, solutions: Sequence[Sequence[str]]) -> list[list[float]]:
        root = Node(line="", good=1.0)
        paths: list[list[Node]] = []
        for lines in solutions:
            node, path = root, []
            for line in lines:
                node = node.child(line, 1.0)
                path.append(node)
            paths.append(path)
        row = lay_out(TOKENIZER, problem, root, None)
        batch = batch_rows([row], TOKENIZER)
        hidden = model.hidden(batch.token_ids, positions=batch.positions, mask=batch.mask)
        verdicts = tag_logits(hidden, model.embedding.weight, TOKENIZER).sigmoid()[0]
        asked = (batch.tags[0] != UNKNOWN).nonzero()[:, 0]
        scores = dict(zip(_order(root), verdicts[asked].tolist(), strict=True))
        return [[scores[id(node)] for node in path] for path in paths]

    return judge


def _order(root: Node) -> list[int]:
    """Identities of the nodes in the order in which `lay_out` writes their tags."""
    waiting, order = [root], []
    while waiting:
        node = waiting.pop()
        for child in node.children:
            order.append(id(child))
            waiting.append(child)
    return order


def test_a_tree_computes_what_its_paths_compute() -> None:
    """Judged together or one by one, each line of each solution gets the same score."""
    judge = torch_judge(small_model())
    for index in (1, 5):
        problem = PROBLEMS[index]
        right = lines_of(problem.solution)
        wrong = [*right[:1], *(corrupt(Random(index), problem.facts(), line) or line for line in right[1:])]
        together = judge(problem.text, [right, wrong, right[:2]])
        for lines, scores in zip([right, wrong, right[:2]], together, strict=True):
            alone = judge(problem.text, [lines])[0]
            assert scores == pytest.approx(alone, abs=1e-5)


def test_batched_generation_equals_reading_at_once() -> None:
    """Greedy continuations from the cache are what one forward pass over the text would choose."""
    model = small_model()
    prompts = [TOKENIZER.prompt(problem.text)[: 20 + 7 * index] for index, problem in enumerate(PROBLEMS[:4])]
    continued = continue_tokens(
        model, TOKENIZER, prompts, Draw(temperature=0), copies=2, seed=1, max_tokens=12
    )
    for prompt, (written, twin) in zip(prompts, continued, strict=True):
        assert written == twin
        with torch.no_grad():
            logits = model(torch.tensor([prompt + written]))[0, len(prompt) - 1 : -1]
        # bfloat16 may exchange two tokens that are nearly as likely.
        chosen = logits.gather(-1, torch.tensor(written)[:, None])[:, 0]
        assert (logits.max(-1).values - chosen).max() < 0.5


def test_draws_keep_to_their_cuts() -> None:
    """Top-k, top-p and min-p leave only what they should, and greedy takes the likeliest."""
    logits = torch.log(torch.tensor([[0.5, 0.3, 0.15, 0.05]])).expand(400, 4)
    generator = torch.Generator().manual_seed(1)
    assert set(Draw(top_k=2).choose(logits, generator).tolist()) == {0, 1}
    assert set(Draw(top_p=0.6).choose(logits, generator).tolist()) == {0, 1}
    assert set(Draw(min_p=0.2).choose(logits, generator).tolist()) == {0, 1, 2}
    assert set(Draw().choose(logits, generator).tolist()) == {0, 1, 2, 3}
    assert set(Draw(temperature=0).choose(logits, generator).tolist()) == {0}


def test_an_interrupted_sampling_goes_on_with_the_same_problems(tmp_path: Path) -> None:
    """A file cut anywhere, even within a line, ends up with the problems that were asked for, in order."""
    model, out = small_model(), tmp_path / "train-3.jsonl"
    run = SampleRun(split=Split.TRAIN, seed=3, problems=9, copies=1, batch=1, max_steps=1, max_tokens=8)
    sample_file(model, run, Draw(temperature=0), out)
    whole = [each.problem for each in read_samples(out)]
    assert sorted(whole) == sorted(p.text for p in islice(mixed_problems(Split.TRAIN, 3, max_steps=1), 9))
    out.write_text(out.read_text()[:-40])
    sample_file(model, run, Draw(temperature=0), out)
    assert [each.problem for each in read_samples(out)] == whole


def test_sample_files_may_grow(tmp_path: Path) -> None:
    """Lines that arrive later are found, and one that is still being written is not."""
    files = SampleFiles(tmp_path)
    line = SampledProblem(problem="Eva has 3 pears.", steps=1, solutions=(" Eva = 3",)).as_line()
    path = tmp_path / "a.jsonl"
    path.write_text(line + line[:10])
    files.refresh()
    assert len(files.problems) == 1
    path.write_text(line + line)
    files.refresh()
    files.refresh()
    assert len(files.problems) == 2


def test_a_scorer_of_half_the_width_costs_less_than_a_third() -> None:
    """The default sizes keep to the share that was set, tag tokens and attention counted."""
    generator = Shape(vocabulary=576, width=256, layers=4, heads=8, feed_forward=512)
    scorer = Shape(vocabulary=576, width=128, layers=5, heads=4, feed_forward=128)
    assert layer_weights(generator) == 4 * (4 * 256 * 256 + 3 * 256 * 512)
    sizes = [SolutionSize(prompt_tokens=90, solution_tokens=95, lines=6)]
    assert 0.2 < flops_share(scorer, generator, sizes, vocabulary=1092) <= 0.3


def test_a_slice_of_full_size_is_the_model() -> None:
    """Cutting nothing away turns the states and changes no prediction; cutting half changes them, and still runs."""
    model = Transformer(Shape(vocabulary=TOKENIZER.trained, width=128, layers=2, heads=4, feed_forward=64))
    plant_heads(model, TOKENIZER)
    rows = [torch.tensor([TOKENIZER.prompt(problem.text)]) for problem in PROBLEMS[:6]]
    whole = slice_model(model, rows, width=128, feed_forward=64)
    narrow = slice_model(model, rows, width=64, feed_forward=32)
    with torch.no_grad():
        assert torch.allclose(whole(rows[0]), model(rows[0]), atol=2e-3)
        assert narrow(rows[0]).shape == model(rows[0]).shape
    assert narrow.shape.heads == 2
    with pytest.raises(ValueError, match="head width"):
        slice_model(model, rows, width=100, feed_forward=32)
