"""`bench sample`: our side is measured as it is; another side must be a WebUI."""
from __future__ import annotations

import json

import pytest

from lib_sdtrain.cli.main import main
from lib_sdtrain.errors import UserError
from lib_sdtrain.sample.bench.measure import _document
from lib_sdtrain.sample.bench.sides import Cost, webui_side


def test_our_own_time_is_measured_without_a_webui(tiny_checkpoint, capsys, monkeypatch):
    monkeypatch.delenv("SDTRAIN_WEBUI", raising=False)
    wanted = ["bench", "sample", "--checkpoint", str(tiny_checkpoint), "--runs", "1", "--steps", "1", "--size", "64"]
    assert main([*wanted, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    row = document[f"sample_{tiny_checkpoint.stem}_64px_1"]
    assert row["ours"] > 0
    assert (row["baseline"], row["ratio"], row["runs"]) == (None, None, 1)


def test_medians_and_their_ratio():
    found = {"ours": [Cost(2.0, 1.0, 5), Cost(4.0, 1.0, 5), Cost(3.0, 1.5, 5)], "baseline": [Cost(6.0, 2.0, 7)]}
    document = _document(found, 3)
    assert (document["ours"], document["baseline"], document["ratio"]) == (3.0, 6.0, 0.5)
    assert document["processor_ratio"] == 0.5
    assert document["memory_baseline"] == 7


def test_another_folder_is_no_webui(tmp_path):
    with pytest.raises(UserError, match="not an installed WebUI"):
        webui_side(tmp_path, tmp_path / "a.safetensors", tmp_path / "data")


def test_a_missing_checkpoint_is_a_mistake(capsys):
    assert main(["bench", "sample", "--checkpoint", "nowhere.safetensors"]) == 2
    assert "no such file" in capsys.readouterr().err
