"""install.py as the WebUI's launcher calls it."""
from __future__ import annotations

import os

import pytest

from tests.install.conftest import add_distribution


def test_says_nothing_and_calls_no_pip_when_nothing_is_missing(webui_environment):
    webui_environment.has(diffusers="0.30.0")
    done = webui_environment.launch()
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert webui_environment.pip_calls() == []


def test_asks_only_for_what_is_missing_and_pins_all_that_is_there(webui_environment, install):
    done = webui_environment.launch()
    call, = webui_environment.pip_calls()
    assert call["arguments"][-1] == "diffusers==0.31.0"
    assert not [word for word in call["arguments"] if "upgrade" in word]
    pins = call["constraints"][0].splitlines()
    assert "torch==2.1.2+cu121" in pins
    assert len(pins) == len(install.requirements(install.DIRECT["run"])) - 1
    assert "diffusers" not in call["constraints"][0]
    assert done.returncode == 0
    assert len(done.stdout.splitlines()) == 1


def test_never_asks_for_torch(environment):
    environment.launch()
    asked = " ".join(word for call in environment.pip_calls() for word in call["arguments"])
    assert "diffusers==" in asked
    assert " torch==" not in asked


def test_the_vocabulary_package_comes_without_its_dependencies(environment):
    environment.launch()
    alone = [call["arguments"] for call in environment.pip_calls() if "open-clip-torch==2.20.0" in call["arguments"]]
    assert len(alone) == 1
    assert "--no-deps" in alone[0]


def test_a_version_that_pip_cannot_read_is_no_constraint(webui_environment):
    webui_environment.has(strange="unknown-version")
    webui_environment.launch()
    assert "strange" not in webui_environment.pip_calls()[0]["constraints"][0]


def test_the_first_of_two_copies_of_a_package_is_the_pinned_one(webui_environment):
    later = webui_environment.packages.parent / "later"
    add_distribution(later, "NumPy", "9.9.9")
    path = os.pathsep.join(map(str, (webui_environment.webui, webui_environment.packages, later)))
    webui_environment.launch(PYTHONPATH=path)
    pins = webui_environment.pip_calls()[0]["constraints"][0]
    assert "numpy==1.2.3" in pins
    assert "9.9.9" not in pins


def test_a_failing_pip_costs_one_line_and_no_error_code(webui_environment):
    done = webui_environment.launch(FAKE_PIP_FAILS="ERROR: No matching distribution found for diffusers==0.31.0")
    line, = done.stdout.splitlines()
    assert line.startswith("SD Train: could not install diffusers 0.31.0")
    assert "No matching distribution" in line
    assert (done.returncode, done.stderr) == (0, "")


def test_an_environment_without_pip_costs_one_line_and_no_error_code(webui_environment):
    (webui_environment.packages / "pip" / "__main__.py").unlink()
    done = webui_environment.launch()
    assert (done.returncode, len(done.stdout.splitlines()), done.stderr) == (0, 1, "")


def test_damaged_metadata_of_other_packages_do_no_harm(webui_environment):
    (webui_environment.packages / "broken-1.0.dist-info").mkdir()
    (webui_environment.packages / "empty-1.0.dist-info").mkdir()
    (webui_environment.packages / "empty-1.0.dist-info" / "METADATA").write_bytes(b"\xff\xfe\x00")
    done = webui_environment.launch()
    assert (done.returncode, done.stderr) == (0, "")
    assert len(webui_environment.pip_calls()) == 1


def test_skip_install_is_honoured(webui_environment):
    done = webui_environment.launch(COMMANDLINE_ARGS="--xformers --skip-install")
    assert (done.returncode, done.stdout) == (0, "")
    assert webui_environment.pip_calls() == []


def test_the_index_of_the_webui_is_used(webui_environment):
    webui_environment.launch(INDEX_URL="https://mirror.example/simple")
    arguments = webui_environment.pip_calls()[0]["arguments"]
    assert arguments[arguments.index("--index-url") + 1] == "https://mirror.example/simple"


def test_outside_the_launcher_it_names_the_commands_and_installs_nothing(webui_environment):
    done = webui_environment.launch(inside=False)
    for command in ("install.py demo", "install.py test", "install.py ui"):
        assert command in done.stdout
    assert done.returncode == 0
    assert webui_environment.pip_calls() == []


@pytest.mark.skipif(os.name != "posix", reason="the time of child processes is known on POSIX systems only")
def test_a_satisfied_call_takes_less_than_three_tenths_of_a_second(webui_environment):
    """In time of the processor, for the machine may be busy; with 150 other packages, as in a WebUI."""
    webui_environment.has(diffusers="0.31.0", **{f"other{number}": "1.0" for number in range(150)})
    spent = []
    for _ in range(3):
        before = os.times()
        assert webui_environment.launch().stdout == ""
        after = os.times()
        spent.append(after.children_user + after.children_system - before.children_user - before.children_system)
    assert 0 < min(spent) < 0.3
