"""The pictures that the first-run preset trains on are those that the world draws."""
from pathlib import Path

from PIL import Image, ImageChops

from lib_sdtrain import textfiles
from lib_sdtrain.cli.main import main
from lib_sdtrain.presets import read_preset
from lib_sdtrain.toybox.testdata import write_test_data


def test_the_preset_points_to_the_pictures_that_test_data_writes(tmp_path):
    write_test_data(tmp_path)
    (concept,) = read_preset("toybox-dreambooth")["data"]["concepts"]
    for role, folder in (("subject", Path(concept["instance_dir"])), ("class", Path(concept["class_dir"]))):
        drawn = sorted((tmp_path / role).iterdir())
        assert [path.name for path in drawn] == sorted(path.name for path in folder.iterdir())
        for path in drawn:
            if path.suffix == ".txt":
                assert path.read_text() == (folder / path.name).read_text()
                continue
            with Image.open(path) as one, Image.open(folder / path.name) as other:
                assert ImageChops.difference(one, other).getbbox() is None


def test_the_settings_that_test_data_writes_are_the_presets(tmp_path):
    assert main(["test-data", str(tmp_path)]) == 0
    written, preset = textfiles.read_mapping(tmp_path / "config.yaml"), read_preset("toybox-dreambooth")
    (concept,), (shipped,) = (settings["data"].pop("concepts") for settings in (written, preset))
    assert written == preset
    assert {name: shipped[name] for name in shipped if not name.endswith("_dir")} == {
        name: concept[name] for name in concept if not name.endswith("_dir")
    }
    assert len(list(Path(concept["instance_dir"]).glob("*.png"))) == 8
    assert Path(concept["class_dir"]) == tmp_path / "class"
