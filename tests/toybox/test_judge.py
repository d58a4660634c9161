"""The judge that is shipped knows the truth about renderings that it never saw."""
from __future__ import annotations

from lib_sdtrain.toybox import judge


def test_the_shipped_judge_is_right_about_every_property():
    found = judge.check(judge.shipped_judge(), 200)
    assert min(found.values()) >= 0.97, found


def test_a_saved_judge_reads_as_before(tmp_path, monkeypatch):
    file = tmp_path / "judge.safetensors"
    judge.save_judge(judge.shipped_judge(), file)
    monkeypatch.setattr(judge, "SHIPPED", file)
    assert judge.check(judge.shipped_judge(), 50) == judge.check(judge.shipped_judge(), 50)
