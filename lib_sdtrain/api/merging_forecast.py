"""What a merge will cost, before it starts: bytes on disk, seconds, memory."""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lib_sdtrain.settings.merge import MergeSettings

_PIECES_BYTES = 150 * 10**6
_FP32 = 4
_TEMPORARIES = 4
_LATEST = 5


def forecast(settings: MergeSettings, history: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The facts of a merge, from its files' headers alone. Raises `UserError` with every mistake.

    `out`, `name`, `family`, `bytes` of the file, `memory` in bytes beyond the program itself, `seconds` (None when
    no earlier merge has measured this machine), `blocks` (name -> alpha), `tensors`, `copied` of them, `notes`.
    """
    from lib_sdtrain.merge.recipe import weights_of
    from lib_sdtrain.merge.session import MergeSession
    from lib_sdtrain.model.space import check_space

    with MergeSession(settings) as session:
        plan, inputs = session.plan, session.inputs
        out = Path(str(settings.out))
        check_space(out, plan.nbytes)
        alpha, _ = weights_of(settings, inputs)
        return {
            "out": str(out), "name": out.name, "family": inputs.a.family.name, "bytes": plan.nbytes,
            "memory": _memory(session), "seconds": _seconds(plan.nbytes, plan.method.name, history),
            "blocks": alpha, "tensors": len(plan.steps), "copied": len(plan.steps) - len(plan.merged),
            "notes": list(plan.notes),
        }  # fmt: skip


def _memory(session: Any) -> int:
    """Pieces are small; methods that see whole tensors hold several of the largest."""
    plan = session.plan
    whole = [] if plan.method.elementwise else [plan.steps[key] for key in plan.merged]
    whole += [step for step in plan.steps.values() if step.loras]
    if not whole:
        return _PIECES_BYTES
    largest = max(step.nbytes // step.dtype.itemsize for step in whole)
    return _PIECES_BYTES + largest * _FP32 * (len(session.inputs.models) + _TEMPORARIES)


def _seconds(count: int, method: str, history: Sequence[Mapping[str, Any]]) -> float | None:
    """From the rate of the latest merges by the same method, else of any: bytes of the result a second."""
    from statistics import median

    same = [entry for entry in history if entry.get("method") == method]
    rates = [entry["bytes"] / entry["seconds"] for entry in (same or history)[:_LATEST] if entry.get("seconds")]
    return count / median(rates) if rates else None
