"""`bench states`: in turn, and the ratio is that of the medians."""
from __future__ import annotations

from lib_sdtrain.events import CancelToken
from lib_sdtrain.train.bench import states


def test_runs_go_in_turn_and_medians_are_compared(tmp_path, monkeypatch):
    asked = []

    def trained(run, checkpoint, steps, every):
        asked.append((run.name, every))
        return {"steps": steps, "steps_per_second": 10.0 if every == "null" else 8.0 + len(asked)}

    monkeypatch.setattr(states, "_train", trained)
    *_, last = states.bench_states(tmp_path, CancelToken(), "toybox", 1001, 500, 3)
    assert [name for name, _ in asked] == ["with-0", "without-0", "without-1", "with-1", "with-2", "without-2"]
    assert {every for name, every in asked if name.startswith("with-")} == {"500"}
    row = last.result["states"]
    assert row["states"] == 2
    assert row["ours"] == 1001 / 12.0
    assert row["baseline"] == 1001 / 10.0
    assert row["ratio"] == row["ours"] / row["baseline"]
