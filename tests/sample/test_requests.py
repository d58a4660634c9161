"""Bodies of the WebUI's API as requests."""
from __future__ import annotations

import json

import pytest
from hypothesis import given, settings

from lib_sdtrain.cli.main import main
from lib_sdtrain.errors import UserError
from lib_sdtrain.sample.requests import from_api, read_infotexts, read_requests, to_api
from lib_sdtrain.settings.sample import SampleRequest
from tests.sample.test_infotext import requests


def test_an_empty_body_has_the_apis_defaults():
    assert from_api({}) == SampleRequest()


def test_override_settings_are_honoured():
    request = from_api({"prompt": "a", "override_settings": {
        "CLIP_stop_at_last_layers": 2, "eta_noise_seed_delta": 31337, "randn_source": "NV", "emphasis": "No norm",
        "comma_padding_backtrack": 5, "sd_vae": "x.safetensors", "samples_format": "jpg",
    }})
    assert (request.clip_skip, request.ensd, request.randn_source, request.emphasis) == (2, 31337, "NV", "No norm")
    assert (request.options.comma_padding_backtrack, request.options.sd_vae) == (5, "x.safetensors")


def test_every_mistake_is_reported_with_its_place():
    with pytest.raises(UserError) as caught:
        from_api({"promt": "a", "steps": "many", "override_settings": {"clip_skp": 2}, "styles": ["x"]}, "r.json:3")
    assert {problem.where for problem in caught.value.problems} == {
        "r.json:3.promt", "r.json:3.steps", "r.json:3.override_settings.clip_skp", "r.json:3.styles",
    }
    assert "did you mean prompt" in str(caught.value)


def test_what_asks_for_nothing_is_accepted():
    body = {"prompt": "a", "styles": [], "restore_faces": False, "alwayson_scripts": {}, "script_name": None,
            "refiner_checkpoint": "", "hr_checkpoint_name": "Use same checkpoint", "send_images": False,
            "sampler_index": "Euler a", "scheduler": None, "refiner_switch_at": 0.8,
            "override_settings": {"token_merging_ratio": 0, "sd_vae_decode_method": "Full"}}
    assert from_api(body) == SampleRequest(prompt="a", sampler_name="Euler a")


def test_what_cannot_be_had_is_refused():
    with pytest.raises(UserError, match="token_merging_ratio"):
        from_api({"override_settings": {"token_merging_ratio": 0.5}})
    with pytest.raises(UserError, match="refiner"):
        from_api({"refiner_checkpoint": "other", "refiner_switch_at": 0.8})


def test_old_sampler_names_carry_their_schedule():
    request = from_api({"sampler_name": "DPM++ 2M Karras"})
    assert (request.sampler_name, request.scheduler) == ("DPM++ 2M", "Karras")


def test_a_schedule_of_its_own_wins_over_the_ending_of_the_samplers_name():
    request = from_api({"sampler_name": "DPM++ 2M Karras", "scheduler": "exponential"})
    assert (request.sampler_name, request.scheduler) == ("DPM++ 2M", "Exponential")


def test_an_infotext_in_the_body_gives_what_the_body_does_not():
    request = from_api({"infotext": "a cat\nSteps: 5, Sampler: Heun, CFG scale: 3, Clip skip: 2", "steps": 9})
    assert (request.prompt, request.steps, request.sampler_name, request.clip_skip) == ("a cat", 9, "Heun", 2)


@given(requests())
@settings(max_examples=100, deadline=None)
def test_there_and_back_is_lossless(request):
    assert from_api(json.loads(json.dumps(to_api(request)))) == request


def test_files_hold_one_body_a_list_or_one_a_line():
    one = '{"prompt": "a"}'
    assert len(read_requests(one)) == 1
    assert len(read_requests(f"[{one}, {one}]")) == 2
    assert len(read_requests(f"{one}\n\n{one}\n{one}\n")) == 3


def test_a_mistake_in_a_file_names_the_line():
    with pytest.raises(UserError, match=r"r\.jsonl:2\.stepz"):
        read_requests('{"prompt": "a"}\n{"stepz": 3}\n', "r.jsonl")
    with pytest.raises(UserError, match=r"r\.jsonl:2: not JSON"):
        read_requests('{"prompt": "a"}\nnonsense\n', "r.jsonl")
    with pytest.raises(UserError, match="no request"):
        read_requests("[]", "r.json")


def test_infotexts_are_separated_by_lines_of_equals():
    assert [request.prompt for request in read_infotexts("a\n=====\nb\n==========\nc\n")] == ["a", "b", "c"]
    with pytest.raises(UserError, match="no infotext"):
        read_infotexts("\n=====\n")


def test_what_an_infotext_asks_for_in_vain_is_said_on_the_command_line(tiny_checkpoint, tmp_path, capsys):
    plain = "a\nSteps: 1, Sampler: Euler, CFG scale: 7, Seed: 1, Size: 64x64"
    (tmp_path / "i.txt").write_text(
        f"{plain}\n=====\n{plain}, VAE: soft.pt, Refiner: xl, Refiner switch at: 0.8, Odd: 3, Version: v1.10.1\n"
    )
    assert main(["sample", "--checkpoint", str(tiny_checkpoint), "--out", str(tmp_path / "out"),
                 "--infotext", str(tmp_path / "i.txt")]) == 0
    said = capsys.readouterr().err
    for note in ("the refiner (xl) cannot be had here", "“Odd: 3” is not known here and has no effect",
                 "it was decoded with the VAE soft.pt; name its file with --vae to use it"):
        assert said.count(note) == 1
    assert "i.txt[2]" in said
    assert "switch at" not in said
