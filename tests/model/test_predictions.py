"""What a model predicts, and on which schedule, is said again in every file that is made of it."""
from dataclasses import replace

import pytest
import torch
import yaml

from lib_sdtrain.events import CancelToken
from lib_sdtrain.model.checkpoint import Checkpoint, open_checkpoint
from lib_sdtrain.model.convert import convert
from lib_sdtrain.model.family import PUBLISHED, SD1, SD2, SDXL, V_PREDICTION
from lib_sdtrain.model.tensorfile import FOLDER
from lib_sdtrain.settings.convert import ConvertSettings
from tests.merge.models import run, state, write
from tests.model.test_diffusers_folder import folder_family, write_folder

SAYS_V = {"format": "pt", "modelspec.prediction_type": "v"}


def reads(path):
    family = open_checkpoint(path).family
    return family.prediction_type, family.schedule.zero_terminal_snr


@pytest.mark.parametrize("name", [SD1, SD2, SDXL])
def test_a_folder_with_zero_terminal_snr_stays_so_as_a_file_and_merged(tmp_path, name):
    folder = tmp_path / "folder"
    write_folder(folder, folder_family(name), prediction_type="v_prediction", rescale_betas_zero_snr=True)
    out = tmp_path / "file.safetensors"
    list(convert(ConvertSettings(file=str(folder), out=str(out)), CancelToken()))
    merged, _ = run(tmp_path, a=str(folder), b=str(folder), alpha=0.5, out=str(tmp_path / "merged.safetensors"))
    assert reads(folder) == reads(out) == reads(merged["out"]) == (V_PREDICTION, True)
    out.with_suffix(".yaml").unlink()
    assert ("v_pred" in open_checkpoint(out).file_keys) == (name == SDXL)
    list(convert(ConvertSettings(file=str(folder), out=str(tmp_path / "again")), CancelToken()))
    assert reads(tmp_path / "again") == (V_PREDICTION, True)


@pytest.mark.parametrize("name", [SD1, SD2])
def test_a_published_folder_that_predicts_v_gets_a_description(tmp_path, name):
    write_folder(tmp_path, folder_family(name))
    family = PUBLISHED[name].with_prediction_type(V_PREDICTION)
    tensors = open_checkpoint(tmp_path).tensors
    assert tensors.container == FOLDER
    described = yaml.safe_load(Checkpoint(tmp_path, tensors, family, {}).config_text)
    assert described["model"]["params"]["parameterization"] == "v"
    assert Checkpoint(tmp_path, tensors, PUBLISHED[name], {}).config_text is None


@pytest.mark.parametrize("name", ["sd1", "sd2", "sdxl"])
def test_merging_keeps_what_only_metadata_says(tmp_path, name):
    a, b = (write(tmp_path / f"{x}.safetensors", state(name, seed=n), SAYS_V) for n, x in enumerate("ab"))
    merged, _ = run(tmp_path, a=a, b=b, alpha=0.5, out=str(tmp_path / "merged.safetensors"))
    assert reads(a) == reads(merged["out"]) == (V_PREDICTION, False)
    child = open_checkpoint(merged["out"])
    assert ("v_pred" in child.tensors) == (name == "sdxl")


def test_a_published_file_that_only_metadata_calls_v_gives_its_children_a_description(tmp_path):
    path = write(tmp_path / "a.safetensors", state(), SAYS_V)
    checkpoint = open_checkpoint(path)
    known = replace(checkpoint, family=PUBLISHED[SD1].with_prediction_type(V_PREDICTION))
    assert yaml.safe_load(known.config_text)["model"]["params"]["parameterization"] == "v"
    assert replace(known, family=replace(known.family, prediction_guessed=True)).config_text is None


def test_markers_that_a_file_has_stay_one(tmp_path):
    tensors = {**state("sdxl"), "v_pred": torch.tensor([]), "ztsnr": torch.tensor([])}
    path = write(tmp_path / "a.safetensors", tensors, SAYS_V)
    keys = open_checkpoint(path).keys()
    assert sorted(keys) == sorted(tensors)
    assert reads(path) == (V_PREDICTION, True)
