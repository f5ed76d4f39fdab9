"""What frozen features say without any federated training."""

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from fed_fsad.methods.method import Scores


def category_scores(logits: Tensor, names: tuple[str, ...]) -> Scores:
    """Scores of an image from one logit per category, [B, M]: it is as abnormal as its likeliest category."""
    return Scores(image=logits.max(dim=1).values, categories=logits, names=names)


def linear_probe(queries: Tensor, supports: Tensor, labels: Tensor, names: tuple[str, ...]) -> Scores:
    """Logistic regression, one category against the rest, on frozen embeddings of the supports.

    queries: [B, D]. supports: [K, D]. labels: [K, M] bool. The image score is a probe of its own, abnormal against
    normal. A target all supports agree on cannot be fitted: its score is 0 for every image, which tells nothing.
    """
    columns = [_probe(queries, supports, labels[:, m]) for m in range(len(names))]
    return Scores(
        image=_probe(queries, supports, labels.any(dim=1)), categories=torch.stack(columns, dim=1), names=names
    )


def _probe(queries: Tensor, supports: Tensor, target: Tensor) -> Tensor:
    if target.all() or not target.any():
        return torch.zeros(len(queries))
    # C = 10: unit embeddings are too short for the default penalty to let the probe move (ours)
    model = LogisticRegression(C=10, class_weight="balanced", max_iter=1000).fit(supports.numpy(), target.numpy())
    return torch.from_numpy(model.decision_function(queries.numpy()).astype(np.float32))
