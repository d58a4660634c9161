"""What a method does to twelve weights: numbers for a small figure, computed by the method itself."""
from __future__ import annotations

from collections.abc import Mapping

import torch

from lib_sdtrain.merge.methods import all_methods

_A = (0.55, -0.40, 0.25, 0.80, -0.65, 0.10, -0.20, 0.45, -0.85, 0.30, 0.60, -0.50)
_B = (0.20, 0.35, 0.70, 0.85, -0.15, -0.45, -0.75, 0.05, -0.60, 0.75, -0.30, -0.90)
_C = (0.40, -0.10, 0.35, 0.30, -0.70, 0.20, -0.45, 0.65, -0.35, 0.15, 0.20, -0.60)


def example(name: str, alpha: float, beta: float, params: Mapping[str, float]) -> dict[str, list[float]]:
    """`a`, `b`, `c` (as far as the method uses them) and the `result` for example tensors of twelve weights."""
    method = all_methods()[name]
    models = [torch.tensor(values) for values in (_A, _B, _C)[: method.models]]
    if method.survey is not None:
        columns = [model.repeat(4, 1) + torch.linspace(-0.1, 0.3, 4)[:, None] * (n + 1)
                   for n, model in enumerate(models)]  # fmt: skip
        similarity = method.survey(*columns)
        span = {"low": float(similarity.min()), "high": float(similarity.max())}
        result = method.function(*columns, alpha=alpha, **span)[0]
        models = [column[0] for column in columns]
    else:
        generator = torch.Generator().manual_seed(int(params.get("seed", 0)))
        known = {**params, "alpha": alpha, "beta": beta, "generator": generator}
        result = method.function(*models, **{word: known[word] for word in method.params})
    rounded = {role: [round(value, 4) for value in model.tolist()] for role, model in zip("abc", models, strict=False)}
    return {**rounded, "result": [round(value, 4) for value in result.tolist()]}
