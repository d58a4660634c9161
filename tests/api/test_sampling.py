"""The Sample form, what it plans, and the job that draws it."""
from __future__ import annotations

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from lib_sdtrain.api.access import Access
from lib_sdtrain.api.routing import add_route
from lib_sdtrain.api.sampling import SampleService
from lib_sdtrain.api.sampling_form import OTHER, form_items, form_of, infotext_of, read_form, request_of
from lib_sdtrain.api.sampling_grid import Axis, labelled, make_axis
from lib_sdtrain.api.sampling_routes import sample_viewing
from lib_sdtrain.errors import UserError
from lib_sdtrain.events import Preview
from lib_sdtrain.host.standalone import StandaloneHost
from lib_sdtrain.jobs import JobRunner
from lib_sdtrain.settings.sample import SampleOptions, SampleRequest

SMALL = {"prompt": "a cat", "width": 64, "height": 64, "steps": 2, "seed": 7, "sampler_name": "Euler a"}


@pytest.fixture
def service(tmp_path, tiny_checkpoint):
    (tmp_path / "models").mkdir()
    for name in ("one", "two"):
        (tmp_path / "models" / f"{name}.safetensors").symlink_to(tiny_checkpoint)
    yaml = tiny_checkpoint.with_suffix(".yaml")
    for name in ("one", "two") if yaml.exists() else ():
        (tmp_path / "models" / f"{name}.yaml").symlink_to(yaml)
    host = StandaloneHost(tmp_path)
    return SampleService(host, JobRunner(host))


def form(**changes):
    return {**form_of(SampleRequest(**SMALL)), "checkpoint": "one.safetensors", **changes}


def test_the_form_is_lossless():
    options = SampleOptions(rho=3.0, tiling=True)
    request = SampleRequest(**SMALL, eta=0.5, hr_prompt="x", enable_hr=True, options=options)
    assert request_of(form_of(request)) == request
    assert set(form_of(request)) == {*form_items(), OTHER}


def test_every_mistake_stands_at_its_box(service):
    outlook = service.outlook(form(steps=0, sampler_name="Foo", other="etta: 1\nrho: much", checkpoint="three"))
    assert {problem.where for problem in outlook.problems} == {"steps", "other", "checkpoint"}
    assert len(outlook.problems) == 4
    places = {problem.where for problem in service.outlook(form(sampler_name="Foo", width=70)).problems}
    assert places == {"width"}
    assert [problem.where for problem in service.outlook(form(sampler_name="Foo")).problems] == ["sampler_name"]


def test_a_missing_lora_is_a_mistake(service):
    problems = service.outlook(form(prompt="a <lora:nothere:1> cat")).problems
    assert "no LoRA is called 'nothere'" in problems[0].what


def test_a_page_from_outside_names_no_vae_of_another_folder(tmp_path, tiny_checkpoint):
    host = StandaloneHost(tmp_path, local=False)
    outside = SampleService(host, JobRunner(host))
    for name in (str(tiny_checkpoint), f"{tmp_path}/../elsewhere.vae.pt", "~/nothing.vae.pt"):
        [problem] = outside.outlook(form(checkpoint="toybox", other=f"sd_vae: {name}")).problems
        assert "outside the folders" in problem.what
        assert problem.where == OTHER
    own = host.output_dir() / "own.vae.pt"
    outlook = outside.outlook(form(checkpoint="toybox", other=f"sd_vae: {own}"))
    assert [problem.what for problem in outlook.problems] == [f"no VAE is called {str(own)!r}"]


def test_the_outlook_counts(service):
    outlook = service.outlook(form(batch_size=2, n_iter=3, enable_hr=True, hr_scale=1.5, hr_second_pass_steps=4))
    assert (outlook.kind, outlook.pictures, outlook.steps) == ("pictures", 6, 18)
    assert outlook.sizes == "64 x 64, then 96 x 96"
    grid = service.outlook(form(x="Steps", x_values="2-6 (+2)", y="CFG scale", y_values="3, 7"))
    assert (grid.kind, grid.pictures) == ("grid", 6)
    assert service.outlook(form(compare="two.safetensors")).kind == "compare"


def test_a_grid_and_a_comparison_exclude_each_other(service):
    outlook = service.outlook(form(compare="two.safetensors", x="Steps", x_values="2, 3"))
    assert [problem.where for problem in outlook.problems] == ["compare"]
    same = service.outlook(form(x="Steps", x_values="2, 3", y="Steps", y_values="4"))
    assert [problem.where for problem in same.problems] == ["y"]


@pytest.mark.parametrize(("title", "text", "values"), [
    ("Steps", "10-30 (+10), 50", (10, 20, 30, 50)), ("CFG scale", "1.5, 3", (1.5, 3.0)),
    ("Clip skip", "1-3", (1, 2, 3)), ("Seed", "3141592650-3141592652", (3141592650, 3141592651, 3141592652)),
    ("Sampler", "Euler a, DPM++ 2M", ("Euler a", "DPM++ 2M")), ("nothing", "ignored", (None,)),
])
def test_axes(title, text, values):
    assert make_axis(title, text, "x", lambda name, where: name).values == values


def test_mistakes_of_an_axis_are_all_told():
    with pytest.raises(UserError) as caught:
        make_axis("Steps", "many, 0, 5", "x", lambda name, where: name)
    assert [problem.where for problem in caught.value.problems] == ["x_values", "x_values"]
    with pytest.raises(UserError) as caught:
        make_axis("Sampler", "Euler, Heunn", "y", lambda name, where: name)
    assert [problem.where for problem in caught.value.problems] == ["y_values"]
    with pytest.raises(UserError, match="no value"):
        make_axis("Steps", " ", "x", lambda name, where: name)


def test_a_sheet_has_room_for_labels():
    row = [Image.new("RGB", (64, 64), "red"), Image.new("RGB", (64, 64), "blue")]
    sheet = labelled([row, row], ["a", "a very long label that does not fit"], ["one", "two"])
    assert sheet.width > 128
    assert sheet.height > 128
    assert labelled([row], ["", ""], [""]).size == (128, 64)
    assert Axis().labels == ("",)


def test_an_infotext_fills_the_form_and_tells_what_cannot_be_had(service):
    text = ("a (cat:1.2)\nNegative prompt: dog\n"
            "Steps: 5, Sampler: DPM++ 2M Karras, CFG scale: 6, Seed: 3, Size: 64x64, "
            "Model hash: 0123456789, Model: gone, Clip skip: 2, ENSD: 31337, Eta: 0.5, TI hashes: \"badhands: 123\", "
            "Refiner: x [y], Refiner switch at: 0.8, Frobnicate: 3, Version: v1.9.0")
    reading = service.read(text)
    assert reading.values["sampler_name"] == "DPM++ 2M"
    assert reading.values["clip_skip"] == 2
    assert reading.values[OTHER] == "eta_ancestral: 0.5"
    notes = " ".join(reading.notes)
    for word in ("refiner", "Frobnicate", "gone", "badhands"):
        assert word in notes
    assert service.read("a\nSteps: 5, Sampler: Euler, CFG scale: 6, Model: one").notes == ()
    assert service.entry_of(read_form("a\nSteps: 5, Sampler: Euler, CFG scale: 6, Model: two")).path.stem == "two"


def test_pictures_without_an_infotext_are_refused(tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "plain.png")
    (tmp_path / "text.png").write_text("no picture")
    for name, words in (("plain.png", "no infotext"), ("text.png", "not a picture")):
        with pytest.raises(UserError, match=words):
            infotext_of(tmp_path / name)
    info = PngInfo()
    info.add_text("parameters", "a cat\nSteps: 5")
    Image.new("RGB", (8, 8)).save(tmp_path / "good.png", pnginfo=info)
    assert infotext_of(tmp_path / "good.png") == "a cat\nSteps: 5"


def previews(job):
    assert job.done.wait(60)
    assert job.state == "finished", [event for _, event in job.log.since(0)][-1]
    return [event for _, event in job.log.since(0) if isinstance(event, Preview)]


def test_a_comparison_draws_both_from_one_seed(service):
    seen = previews(service.start(form(seed=-1, compare="two.safetensors")))
    assert [event.step for event in seen] == [0, 1]
    requests = [read_form(event.infotext).values for event in seen]
    assert requests[0]["seed"] == requests[1]["seed"] != -1
    assert "Model: one" in seen[0].infotext
    assert "Model: two" in seen[1].infotext


def test_a_grid_ends_in_a_labelled_sheet_with_its_infotext(service):
    job = service.start(form(x="Steps", x_values="1, 2", y="Checkpoint", y_values="one.safetensors, two.safetensors"))
    seen = previews(job)
    assert sorted(event.step for event in seen) == [-1, 0, 1, 2, 3]
    sheet = service.recent[0].file
    assert sheet.name == "grid.png"
    assert 'Grid X: Steps, Grid X values: "1, 2", Grid Y: Checkpoint' in infotext_of(sheet)
    assert Image.open(sheet).size > (128, 128)
    assert sheet.parent.parent == service.host.output_dir() / "samples"


def test_only_announced_pictures_are_served(service):
    app = FastAPI()
    for route in sample_viewing(service):
        add_route(app, route, Access(app))
    client = TestClient(app)
    assert client.get("/sdtrain/v1/sample/recent").json() == {"pictures": []}
    previews(service.start(form()))
    listed = client.get("/sdtrain/v1/sample/recent").json()["pictures"]
    assert len(listed) == 1
    assert "Steps: 2" in listed[0]["infotext"]
    assert client.get(f"/sdtrain/v1/sample/picture/{listed[0]['id']}").headers["content-type"] == "image/png"
    for wrong in ("x", "..%2Fsecret", "0000.png"):
        assert client.get(f"/sdtrain/v1/sample/picture/{wrong}").status_code == 404


def test_nothing_is_drawn_while_mistakes_are_left(service):
    with pytest.raises(UserError):
        service.start(form(steps=0))
    assert service.runner.job is None
