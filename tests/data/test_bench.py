"""The measurements of data sets come as a document and as a table."""
import json

from lib_sdtrain.cli.main import main
from lib_sdtrain.data import bench


def test_the_bench_measures_opening_drawing_and_decoding(capsys, monkeypatch):
    monkeypatch.setattr(bench, "PHOTOS", 2)
    monkeypatch.setattr(bench, "PHOTO", (160, 120))
    command = ("bench", "data", "--known", "40", "--files", "3", "--runs", "1")
    assert main([*command, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert set(document) == {"known_40", "files_3", "decode_resize_crop"}
    assert {"opening", "opening_a_picture", "draw", "memory"} <= set(document["known_40"])
    assert document["files_3"]["reading_a_picture"] > 0
    assert document["decode_resize_crop"]["ratio"] > 0
    assert main(list(command)) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].split()[:2] == ["40", "known"]
    assert "Pillow alone" in lines[-1]
