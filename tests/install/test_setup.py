"""install.py demo, test and ui: what is installed where, when, and what is said when that fails."""
from __future__ import annotations

import errno
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.install.conftest import ROOT


@pytest.fixture
def setup(install, tmp_path, monkeypatch):
    """install.py with a folder of its own; pip's calls and the started command are recorded, not done."""
    calls, started = [], []
    monkeypatch.setattr(install, "VENV", tmp_path / ".venv")
    monkeypatch.setattr(install, "wants_cpu_build", lambda python: False)
    monkeypatch.setattr(install, "run_pip", lambda python, arguments, what: calls.append((str(python), arguments)))
    monkeypatch.setattr(install, "start", lambda *call: started.append(call) or 0)

    def make_venv(python):
        python.parent.mkdir(parents=True, exist_ok=True)
        python.touch()

    monkeypatch.setattr(install, "make_venv", make_venv)
    for name in ("LOCKS", "DIRECT"):
        copies = {}
        for kind, path in getattr(install, name).items():
            copies[kind] = tmp_path / path.name
            copies[kind].write_bytes(path.read_bytes())
        monkeypatch.setattr(install, name, copies)
    monkeypatch.delenv("TORCH_INDEX_URL", raising=False)
    return SimpleNamespace(install=install, calls=calls, started=started, folder=tmp_path)


def test_torch_comes_first_then_the_complete_lock_without_resolving(setup):
    assert setup.install.main(["demo", "--no-ui"]) == 0
    torch, packages = [arguments for _, arguments in setup.calls]
    assert torch[-1] == "torch==2.13.0"
    assert packages == ["--no-deps", "--requirement", str(setup.install.LOCKS["run"])]
    assert {Path(python).is_relative_to(setup.folder / ".venv") for python, _ in setup.calls} == {True}
    assert [call[1:] for call in setup.started] == [("demo", ["--no-ui"])]


def test_the_second_time_nothing_is_installed(setup):
    setup.install.main(["demo"])
    setup.calls.clear()
    assert setup.install.main(["ui", "--port", "7861"]) == 0
    assert setup.calls == []
    assert setup.started[-1][1:] == ("ui", ["--port", "7861"])


def test_nothing_but_the_command_writes_to_stdout(setup, capsys):
    setup.install.main(["demo", "--json"])
    setup.install.say("something")
    assert capsys.readouterr().out == ""


def test_a_full_disk_is_named(setup, monkeypatch, capsys):
    def full(*call):
        raise OSError(errno.ENOSPC, "No space left on device", "/somewhere/.venv")

    monkeypatch.setattr(setup.install, "make_venv", full)
    assert setup.install.main(["demo"]) == 1
    assert capsys.readouterr().err.startswith("error: /somewhere/.venv: No space left on device; ")


def test_only_the_tests_get_what_tests_need(setup):
    setup.install.main(["demo"])
    assert not any("test.txt" in word for _, arguments in setup.calls for word in arguments)
    setup.calls.clear()
    setup.install.main(["test", "-k", "name"])
    assert [arguments[-1] for _, arguments in setup.calls] == [str(setup.install.LOCKS["test"])]
    assert setup.started[-1][1:] == ("test", ["-k", "name"])


def test_changed_pins_are_installed_again(setup):
    setup.install.main(["demo"])
    setup.calls.clear()
    with setup.install.LOCKS["run"].open("a") as lock:
        lock.write("another==1.0\n")
    setup.install.main(["demo"])
    assert len(setup.calls) == 2


def test_an_interrupted_set_up_is_taken_up_again(setup, monkeypatch, capsys):
    recording = setup.install.run_pip

    def interrupted(*call):
        raise KeyboardInterrupt

    monkeypatch.setattr(setup.install, "run_pip", interrupted)
    assert setup.install.main(["demo"]) == 1
    assert "same command" in capsys.readouterr().err
    monkeypatch.setattr(setup.install, "run_pip", recording)
    assert setup.install.main(["demo"]) == 0
    assert len(setup.calls) == 2


def test_a_failing_pip_is_shown_with_what_to_do(install, tmp_path, capfd):
    with pytest.raises(install.SetupError) as problem:
        install.run_pip(sys.executable, ["--no-index", "no-such-package==1"], "a package")
    assert "No matching distribution found for no-such-package==1" in str(problem.value)
    assert "connection" in str(problem.value)


@pytest.mark.parametrize(("nvidia", "settings", "platform", "expected"), [
    (False, "", "linux", True),
    (True, "", "linux", False),
    (False, ":env:.find-links='/wheels'", "linux", False),
    (False, "global.extra-index-url='https://mirror.example/simple'", "linux", False),
    (False, "global.timeout='60'", "linux", True),
    (False, "", "win32", False),
    (False, "", "darwin", False),
])
def test_the_cpu_build_is_for_linux_without_nvidia_and_without_an_own_package_source(
        install, monkeypatch, nvidia, settings, platform, expected):
    monkeypatch.setattr(install.sys, "platform", platform)
    monkeypatch.setattr("shutil.which", lambda name: "/usr/bin/nvidia-smi" if nvidia else None)
    monkeypatch.setattr(install.Path, "exists", lambda path: nvidia)
    monkeypatch.setattr("subprocess.run", lambda *call, **options: SimpleNamespace(stdout=settings))
    assert install.wants_cpu_build("python") is expected


def test_without_an_answer_from_the_cpu_index_the_default_build_is_taken(setup, monkeypatch, capsys):
    asked = []

    def run_pip(python, arguments, what):
        asked.append(arguments)
        if "--index-url" in arguments:
            raise setup.install.SetupError("no answer")

    monkeypatch.setattr(setup.install, "wants_cpu_build", lambda python: True)
    monkeypatch.setattr(setup.install, "run_pip", run_pip)
    setup.install.install_torch("python", ["torch==2.13.0"])
    assert asked[0][-3:] == ["--index-url", setup.install.CPU_INDEX, "torch==2.13.0"]
    assert asked[1] == ["torch==2.13.0"]
    assert "default build" in capsys.readouterr().err


def test_the_webuis_own_variable_chooses_the_index_of_torch(setup, monkeypatch):
    monkeypatch.setenv("TORCH_INDEX_URL", "https://torch.example/whl")
    setup.install.install_torch("python", ["torch==2.13.0"])
    assert [arguments for _, arguments in setup.calls] == [
        ["--extra-index-url", "https://torch.example/whl", "torch==2.13.0"]]


def test_here_only_adds_and_leaves_venv_alone(setup, monkeypatch):
    direct = setup.install.requirements(setup.install.DIRECT["run"])
    present = {setup.install.normalised(name): (name, "0.9") for name in direct if name not in ("torch", "scipy")}
    monkeypatch.setattr(setup.install, "installed", lambda: present)
    monkeypatch.setattr(setup.install, "missing_of", lambda wanted: {
        name: version for name, version in wanted.items() if setup.install.normalised(name) not in present})
    asked = []

    def run_pip(python, arguments, what):
        asked.append((python, Path(arguments[1]).read_text(), arguments[2:]))

    monkeypatch.setattr(setup.install, "run_pip", run_pip)
    assert setup.install.main(["ui", "--here", "--port", "1"]) == 0
    assert [(python, wanted) for python, _, wanted in asked] == [
        (sys.executable, ["torch==2.13.0"]), (sys.executable, [f"scipy=={direct['scipy']}"])]
    for _, constraints, _ in asked:
        assert "numpy==0.9" in constraints.splitlines()         # there already: as it is
        assert "mpmath==1.3.0" in constraints.splitlines()      # not there yet: as locked
    assert not (setup.folder / ".venv").exists()
    assert setup.started[-1][1:] == ("ui", ["--port", "1"])


def test_a_foreign_folder_named_venv_is_not_touched(install, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(install, "VENV", tmp_path / ".venv")
    (tmp_path / ".venv").mkdir()
    (tmp_path / ".venv" / "precious").write_text("mine")
    assert install.main(["demo"]) == 1
    assert "delete the folder" in capsys.readouterr().err
    assert [path.name for path in (tmp_path / ".venv").iterdir()] == ["precious"]


@pytest.mark.parametrize("version", [(3, 8, 18), (3, 9, 1), (3, 12, 0), (3, 13, 1)])
def test_another_python_is_told_at_once_which_one_is_needed(install, monkeypatch, capsys, version):
    monkeypatch.setattr(install.sys, "version_info", version)
    assert install.main(["demo"]) == 2
    message = capsys.readouterr().err
    assert message.startswith("error: Python ")
    assert "3.10 or 3.11" in message


def test_real_other_pythons_are_told_too(other_pythons):
    if not other_pythons:
        pytest.skip("no Python other than 3.10 and 3.11 on this machine")
    for python in other_pythons:
        done = subprocess.run([python, ROOT / "install.py", "test"], capture_output=True, text=True, check=False)
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr.startswith("error: Python 3.")
        assert len(done.stderr.splitlines()) == 1


def test_an_unknown_command_names_the_known_ones(install, capsys):
    assert install.main(["demos"]) == 2
    assert "demo, test, ui" in capsys.readouterr().err
