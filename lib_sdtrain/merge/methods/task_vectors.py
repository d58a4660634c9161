"""Methods for fine-tunes of a common parent: A is the parent, B, C and further models are its fine-tunes."""
from __future__ import annotations

import itertools

import torch
from torch import Tensor

from lib_sdtrain.merge.methods.base import Method, a_at_zero


def dare(a: Tensor, *others: Tensor, alpha: float, drop_rate: float, generator: torch.Generator) -> Tensor:
    """A + alpha sum_i m_i (M_i - A) / (1 - p), m_i ~ Bernoulli(1 - p) for each weight, p the drop rate.

    Source: Yu et al. 2023, "Language Models are Super Mario" (DARE).
    """
    total = torch.zeros_like(a)
    for model in others:
        kept = torch.rand(a.shape, generator=generator) >= drop_rate
        total += torch.where(kept, model - a, 0.0)
    return a + alpha / (1 - drop_rate) * total


def _trimmed(delta: Tensor, density: float) -> Tensor:
    keep = round(density * delta.numel())
    if keep == 0:
        return torch.zeros_like(delta)
    size = delta.abs().reshape(-1)
    threshold = size.kthvalue(size.numel() - keep + 1).values
    return torch.where(delta.abs() >= threshold, delta, 0.0)


def ties(a: Tensor, *others: Tensor, alpha: float, density: float) -> Tensor:
    """A + alpha mean of those trimmed differences that agree with the elected sign, for each weight.

    Each difference M_i - A keeps its `density` largest values; the sign of their sum is elected.
    Source: Yadav et al. 2023, "TIES-Merging".
    """
    total, positive, negative = torch.zeros_like(a), torch.zeros_like(a), torch.zeros_like(a)
    votes_for, votes_against = torch.zeros_like(a), torch.zeros_like(a)
    for model in others:
        delta = _trimmed(model - a, density)
        total += delta
        positive += delta.clamp(min=0)
        negative += delta.clamp(max=0)
        votes_for += delta > 0
        votes_against += delta < 0
    up = positive / votes_for.clamp(min=1)
    down = negative / votes_against.clamp(min=1)
    return a + alpha * torch.where(total > 0, up, torch.where(total < 0, down, 0.0))


def model_stock(a: Tensor, *others: Tensor, alpha: float) -> Tensor:
    """A + alpha t (mean(M_i) - A), t = n cos / (1 + (n - 1) cos), cos the mean cosine between differences.

    Negative cosines count as 0; A where a difference is 0. Source: Jang et al. 2024, "Model Stock".
    """
    deltas = [(model - a).reshape(-1) for model in others]
    lengths = [torch.linalg.vector_norm(delta).item() for delta in deltas]
    if min(lengths) == 0:
        return a.clone()
    cosines = [
        torch.dot(deltas[i], deltas[j]).item() / (lengths[i] * lengths[j])
        for i, j in itertools.combinations(range(len(deltas)), 2)
    ]
    cosine = max(0.0, sum(cosines) / len(cosines))
    count = len(deltas)
    share = count * cosine / (1 + (count - 1) * cosine)
    mean = sum(deltas[1:], deltas[0]) / count
    return a + alpha * share * mean.reshape(a.shape)


METHODS = (
    Method(
        "dare", "DARE", "A + α Σ mᵢ (Mᵢ - A) / (1 - p)",
        "Drops a random share of what each fine-tune learnt and scales up the rest, so that they collide less.",
        "Yu et al. 2023", dare, 2, ("alpha", "drop_rate", "generator"), elementwise=False, many=True, exact=a_at_zero,
    ),
    Method(
        "ties", "TIES", "A + α mean(agreeing trimmed Mᵢ - A)",
        "Keeps the largest changes of each fine-tune of A, votes on the direction and averages those that agree.",
        "Yadav et al. 2023", ties, 2, ("alpha", "density"), elementwise=False, many=True, exact=a_at_zero,
    ),
    Method(
        "model_stock", "Model stock", "A + α t (mean(Mᵢ) - A)",
        "Averages fine-tunes of A and pulls the mean back to A as far as they disagree; α is 1 in the paper.",
        "Jang et al. 2024", model_stock, 3, elementwise=False, many=True, exact=a_at_zero,
    ),
)  # fmt: skip
