"""The commands `merge`, `diff` and `bench` as a person types them."""
import json

import pytest
from PIL import Image

from lib_sdtrain.cli.main import main
from tests.merge.models import UNET, state, write


@pytest.fixture
def pair(tmp_path):
    """Two checkpoints that differ in IN04's cross attention only."""
    a, b = state(seed=1), state(seed=1)
    b[UNET + "input_blocks.4.1.transformer_blocks.0.attn2.to_k.weight"] *= 2
    return write(tmp_path / "a.safetensors", a), write(tmp_path / "b.safetensors", b)


def test_model_takes_several_files_and_repeats(tmp_path, capsys):
    files = [write(tmp_path / f"{n}.safetensors", state(seed=n)) for n in range(5)]
    out = tmp_path / "out.safetensors"
    arguments = ["merge", "--a", files[0], "--b", files[1], "--c", files[2], "--method", "model_stock"]
    assert main([*arguments, "--model", files[3], files[4], "--out", str(out), "--json"]) == 0
    once = json.loads(capsys.readouterr().out)["sha256"]
    again = ["--model", files[3], "--model", files[4]]
    assert main([*arguments, *again, "--out", str(tmp_path / "again.safetensors"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["sha256"] == once


def test_diff_tells_where(pair, capsys):
    assert main(["diff", *pair]) == 0
    lines = capsys.readouterr().out.splitlines()
    (far,) = [line for line in lines if "#" in line]
    assert far.startswith("IN04")
    assert lines[0].startswith("BASE   0.0000")
    assert len(lines) == 27


def test_diff_tells_layers_apart_and_speaks_json(pair, capsys):
    assert main(["diff", *pair, "--layers"]) == 0
    assert "cross-attention" in capsys.readouterr().out
    assert main(["diff", *pair, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["layers"]["IN04"]["cross-attention"]["distance"] > 0
    assert document["layers"]["IN04"]["self-attention"]["distance"] == 0


def test_diff_says_that_models_are_equal(pair, capsys):
    assert main(["diff", pair[0], pair[0]]) == 0
    assert capsys.readouterr().out.startswith("the models are equal in every block")


def test_diff_draws_a_heat_map(pair, tmp_path):
    picture = tmp_path / "heat.png"
    assert main(["diff", *pair, "--out", str(picture)]) == 0
    with Image.open(picture) as image:
        colours = {colour for _, colour in image.getcolors(1 << 20)}
    assert (200, 60, 10) in colours  # the farthest cell has the full colour
    assert list(tmp_path.glob(".*")) == []


def test_diff_refuses_before_it_compares(pair, tmp_path, capsys):
    assert main(["diff", *pair, "--out", str(tmp_path / "heat.txt")]) == 2
    assert "heat.txt: the heat map is a .png file" in capsys.readouterr().err
    assert main(["diff", pair[0], str(tmp_path / "none.safetensors")]) == 2
    assert "error:" in capsys.readouterr().err


def test_bench_knows_its_measurements(capsys):
    with pytest.raises(SystemExit) as left:
        main(["bench", "speed"])
    assert left.value.code == 2
    assert "invalid choice: 'speed'" in capsys.readouterr().err
