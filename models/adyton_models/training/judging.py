# SPDX-License-Identifier: Apache-2.0
"""A scorer's checkpoint as a judge of solutions, in PyTorch; a problem's solutions are judged in one pass."""

from collections.abc import Sequence

import torch

from adyton_models.scorer_evaluation import Judge
from adyton_models.tokenizer import Tokenizer
from adyton_models.training.architecture import Transformer
from adyton_models.training.scorer import tag_logits
from adyton_models.training.scorer_rows import UNKNOWN, Node, batch_rows, lay_out


def torch_judge(model: Transformer) -> Judge:
    """The judge that a model is."""
    tokenizer = Tokenizer()
    model.eval()

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
        row = lay_out(tokenizer, problem, root, None)
        batch = batch_rows([row], tokenizer)
        hidden = model.hidden(batch.token_ids, positions=batch.positions, mask=batch.mask)
        verdicts = tag_logits(hidden, model.embedding.weight, tokenizer).sigmoid()[0]
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
