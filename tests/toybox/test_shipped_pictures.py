"""The pictures that the first-run preset trains on are those that the world draws."""
from pathlib import Path

from PIL import Image, ImageChops

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
