"""Set-up of SD Train: on a fresh machine, in an environment of one's own, and inside the WebUI's launcher.

    python install.py demo [--no-ui]     make .venv, install the pinned dependencies, run the main job on toybox
    python install.py test [...]         the same set-up, then the tests (what follows is given to pytest)
    python install.py ui [...]           the same set-up, then the tab without the WebUI
    ... --here                           the current environment in place of .venv; packages are only added to it

Without an argument, inside the WebUI's launcher: adds what is missing there, and changes no package that is there.

Standard library only. The syntax stays that of Python 3.8, so that an old Python can still say which one is needed.
"""
from __future__ import annotations

import os
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent
VENV = ROOT / ".venv"
LOCKS = {kind: ROOT / ".requirements" / f"{kind}.txt" for kind in ("run", "test")}    # every package
DIRECT = {kind: ROOT / ".requirements" / f"{kind}.in" for kind in ("run", "test")}    # what our own code imports
COMMANDS = ("demo", "test", "ui")
PYTHONS = ((3, 11), (3, 10))
CPU_INDEX = "https://download.pytorch.org/whl/cpu"
ALONE = "open-clip-torch"       # wanted for a file of data; its dependencies (torchvision ...) are not installed
TEST_WORKERS = 4
MARKERS = {
    "": True,
    'python_version < "3.11"': sys.version_info < (3, 11),
    'python_version >= "3.11"': sys.version_info >= (3, 11),
    'sys_platform == "win32"': sys.platform == "win32",
}


class SetupError(Exception):
    """What went wrong and what to do about it, in words for the user."""


def main(arguments):
    if not arguments and in_webui_launcher():
        return add_to_webui()
    if not arguments or arguments[0] in ("-h", "--help"):
        return usage()
    if arguments[0] not in COMMANDS:
        return complain(f"install.py: there is no command {arguments[0]!r}; use one of {', '.join(COMMANDS)}", 2)
    if sys.version_info[:2] not in PYTHONS:
        return complain(wrong_python(arguments), 2)
    return set_up_and_start(arguments)


def set_up_and_start(arguments):
    options = [argument for argument in arguments[1:] if argument != "--here"]
    kinds = ("run", "test") if arguments[0] == "test" else ("run",)
    try:
        python = set_up_here(kinds) if "--here" in arguments else set_up_venv(kinds)
    except SetupError as problem:
        return complain(problem, 1)
    except OSError as problem:
        return complain(f"{problem.filename or VENV}: {problem.strerror}; make room or change the folder's owner", 1)
    except KeyboardInterrupt:
        return complain("stopped; the same command goes on where this one ended", 1)
    return start(python, arguments[0], options)


def usage():
    print("\n".join(__doc__.splitlines()[2:6]))
    return 0


def complain(message, code):
    print(f"error: {message}", file=sys.stderr)
    return code


def say(message):
    # not on stdout, which may carry the document of --json
    print(f"set-up: {message}", file=sys.stderr, flush=True)


def wrong_python(arguments):
    """The message for a Python that does not fit; it names one of this machine that does."""
    candidates = [command for major, minor in PYTHONS for command in
                  ([f"python{major}.{minor}"], ["py", f"-{major}.{minor}"])]
    fit = next((command for command in candidates if runs([*command, "-c", ""])), None)
    advice = f"run: {' '.join([*fit, 'install.py', *arguments])}" if fit else "install Python 3.11 and use that"
    return f"Python {sys.version.split()[0]}: SD Train needs Python 3.10 or 3.11, as the WebUI does; {advice}"


def runs(command):
    import subprocess
    try:
        return subprocess.run(command, capture_output=True, timeout=60, check=False).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


# What is wanted, what is there

def requirements(path):
    """name -> version of a requirements file, as far as its markers hold here."""
    found = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        pin, _, marker = (part.strip() for part in line.partition(" ;"))
        if pin and not pin.startswith("#") and MARKERS[marker]:
            name, version = pin.split("==")
            found[name] = version
    return found


def missing_of(wanted):
    """Those of name -> version that are not there in any version. Quick: it runs at every start of the WebUI."""
    from importlib.metadata import PackageNotFoundError, distribution
    missing = {}
    for name, version in wanted.items():
        try:
            distribution(name)
        except PackageNotFoundError:
            missing[name] = version
    return missing


def installed():
    """normalised name -> (name, version) of every distribution of the current environment; the first on the path
    counts, as in an import."""
    import importlib
    from importlib.metadata import distributions
    importlib.invalidate_caches()
    found = {}
    for name, version in map(described, distributions()):
        if name and re.fullmatch(r"[0-9][0-9A-Za-z.!+_-]*", version):
            found.setdefault(normalised(name), (name, version))
    return found


def described(distribution):
    try:
        return distribution.metadata["Name"], distribution.version or ""
    except (OSError, ValueError, KeyError, TypeError):
        return "", ""       # a half-removed package: pip passes it over, too


def normalised(name):
    return re.sub(r"[-_.]+", "-", name).lower()


def add(wanted, present, pip, lock=None):
    """Installs `wanted` (name -> version) so that nothing of `present` can change: pip gets every installed version
    as a constraint, and those of `lock` for what is not there yet."""
    import tempfile
    pins = [f"{name}=={version}" for name, version in present.values()]
    pins += [f"{name}=={version}" for name, version in (lock or {}).items() if normalised(name) not in present]
    alone = [f"{name}=={version}" for name, version in wanted.items() if name == ALONE]
    others = [f"{name}=={version}" for name, version in wanted.items() if name != ALONE]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "constraints.txt")
        path.write_text("\n".join(sorted(pins, key=str.lower)) + "\n", encoding="utf-8")
        if others:
            pip(["--constraint", str(path), *others])
        if alone:
            pip(["--no-deps", *alone])


# Inside the WebUI's launcher

def in_webui_launcher():
    """Whether this is the launcher's call: it puts the WebUI's folder, and with it `launch`, on the path."""
    from importlib.util import find_spec
    spec = find_spec("launch")
    return bool(spec and spec.origin and Path(spec.origin).with_name("modules").joinpath("launch_utils.py").is_file())


def add_to_webui():
    """Installs what the WebUI's environment lacks. Says nothing when nothing is missing, one line otherwise, and
    never fails: the WebUI has to start, whatever happens here."""
    if {"--skip-install", "--skip-prepare-environment"} & set(os.environ.get("COMMANDLINE_ARGS", "").split()):
        return 0
    missing = {}
    try:
        wanted = requirements(DIRECT["run"])
        del wanted["torch"]         # the launcher's own business
        missing = missing_of(wanted)
        if not missing:
            return 0
        before = installed()
        add(missing, before, pip_in_launcher)
        added = sorted(pair for name, pair in installed().items() if name not in before)
        print(f"SD Train: added {listed(added)}; no other package was changed")
    except (SetupError, OSError, ValueError, KeyError, TypeError) as fault:
        reason = fault if isinstance(fault, SetupError) else repr(fault)
        print(f"SD Train: could not install {listed(missing.items()) or 'what it needs'}, so its tab will not train or "
              f"sample; the next start of the WebUI tries again. {reason}")
    return 0


def listed(pairs):
    return ", ".join(f"{name} {version}" for name, version in pairs)


def pip_in_launcher(arguments):
    """pip with little patience for the network, because the WebUI waits."""
    import subprocess
    index = os.environ.get("INDEX_URL")      # the WebUI's own variable
    command = [*pip_install(sys.executable), "--quiet", "--retries", "1", "--timeout", "15",
               *(["--index-url", index] if index else []), *arguments]
    done = subprocess.run(command, capture_output=True, encoding="utf-8", errors="replace", check=False)
    if done.returncode:
        raise SetupError(error_line((done.stdout + done.stderr).splitlines()))


# pip

def pip_install(python):
    # without --no-compile most of the time goes into byte code that is never used
    return [str(python), "-m", "pip", "install", "--disable-pip-version-check", "--no-input", "--prefer-binary",
            "--no-compile"]


def error_line(lines):
    """The line of pip's output that says most: its first ERROR, else its last words."""
    texts = [line.strip() for line in lines if line.strip()]
    faults = [text for text in texts if text.startswith("ERROR:")]
    return (faults or texts[-1:] or ["pip said nothing"])[0]


def run_pip(python, arguments, what):
    """pip in sight of the user: its own progress bars on a terminal, few lines elsewhere."""
    import subprocess
    say(f"installing {what}")
    command = [*pip_install(python), *arguments]
    if sys.stdout.isatty():
        code, fault = subprocess.call(command), "its message stands above"
    else:
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, encoding="utf-8",
                              errors="replace") as process:
            lines = list(follow(process.stdout))
        code, fault = process.returncode, "\n  ".join([error_line(lines), *lines[-8:]])
    if code:
        raise SetupError(f"pip could not install {what} (exit code {code}): {fault}\n"
                         "  Check the connection (a proxy: set HTTPS_PROXY) and the free disk space (about 3 GB, with "
                         "CUDA 8 GB); then give the same command again, it goes on where this one ended.")


def follow(output):
    count = 0
    for line in output:
        if line.startswith(("Collecting ", "Processing ")):
            count += 1
            if count % 20 == 0:
                say(f"  {count} packages found")
        elif line.startswith("Installing collected"):
            say(f"  unpacking {count} packages")
        if not line.startswith("WARNING: Location"):
            yield line.rstrip()


def install_torch(python, arguments):
    """torch, in the build that fits this machine. `arguments`: the pin and pip's constraints."""
    index = os.environ.get("TORCH_INDEX_URL")      # the WebUI's own variable
    if not index and wants_cpu_build(python):
        options = ["--no-deps", "--retries", "1", "--timeout", "15", "--index-url", CPU_INDEX]
        try:
            run_pip(python, [*options, *arguments], "torch for the CPU (no NVIDIA device was found)")
        except SetupError:
            say(f"{CPU_INDEX} did not give it; taking the default build, which brings CUDA (about 3 GB)")
    # after the CPU build this only adds what torch depends on
    run_pip(python, [*(["--extra-index-url", index] if index else []), *arguments], "torch")


def wants_cpu_build(python):
    """Whether the default build would bring CUDA in vain. A machine with a package source of its own is not asked to
    go elsewhere."""
    import shutil
    import subprocess
    nvidia = shutil.which("nvidia-smi") or Path("/proc/driver/nvidia").exists()
    if sys.platform != "linux" or nvidia:
        return False
    settings = subprocess.run([str(python), "-m", "pip", "config", "list"], capture_output=True, encoding="utf-8",
                              check=False).stdout
    return not re.search(r"\b(index-url|extra-index-url|find-links)=", settings)


# An environment of one's own

def set_up_venv(kinds):
    """`.venv` with the pinned packages of `kinds`; its Python. At once when they are there already."""
    python = VENV / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    wanted = [kind for kind in kinds if stamped(kind) != fingerprint(kind)]
    if wanted or not python.exists():
        make_venv(python)
    for kind in wanted:
        if kind == "run":
            torch = requirements(DIRECT["run"])["torch"]
            install_torch(python, ["--constraint", str(LOCKS["run"]), f"torch=={torch}"])
        # the lock is complete, so pip has nothing to resolve
        run_pip(python, ["--no-deps", "--requirement", str(LOCKS[kind])],
                f"{len(requirements(LOCKS[kind]))} packages to {kind}")
        stamp(kind).write_text(fingerprint(kind), encoding="utf-8")
    return python


def stamp(kind):
    return VENV / f"sdtrain-{kind}.stamp"


def stamped(kind):
    return stamp(kind).read_text(encoding="utf-8") if stamp(kind).is_file() else ""


def fingerprint(kind):
    import hashlib
    return hashlib.sha256(LOCKS[kind].read_bytes() + DIRECT[kind].read_bytes()).hexdigest()


def make_venv(python):
    import subprocess
    if not VENV.exists():
        say(f"making {VENV}")
        command = [sys.executable, "-m", "venv", str(VENV)]
        if subprocess.run(command, capture_output=True, check=False).returncode:
            # Debian's Python comes without ensurepip: the pip outside puts one in
            subprocess.run([*command, "--clear", "--without-pip"], capture_output=True, check=False)
            subprocess.run([sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", "pip"],
                           capture_output=True, check=False)
    fits = f"import pip, sys; sys.exit(sys.version_info[:2] not in {PYTHONS})"
    if not runs([str(python), "-c", fits]):
        raise SetupError(f"{VENV}: no Python 3.10 or 3.11 with pip runs there; delete the folder and try again (on "
                         "Debian and Ubuntu after apt install python3-venv), or use your own environment with --here")


def set_up_here(kinds):
    """Adds to the current environment what it lacks; its Python."""
    lock, direct = {}, {}
    for kind in kinds:
        lock.update(requirements(LOCKS[kind]))
        direct.update(requirements(DIRECT[kind]))
    missing = missing_of(direct)
    if "torch" in missing:
        torch = {"torch": missing.pop("torch")}
        add(torch, installed(), lambda asked: install_torch(sys.executable, asked), lock)
    if missing:
        add(missing, installed(), lambda asked: run_pip(sys.executable, asked, listed(missing.items())), lock)
    return Path(sys.executable)


def start(python, command, options):
    """Hands over to the command: this process becomes it where the system can, so that signals reach it."""
    arguments = ["-m", "lib_sdtrain", command, *options]
    if command == "test":
        arguments = ["-m", "pytest", "-n", str(min(os.cpu_count() or 1, TEST_WORKERS)), "--dist", "loadfile", *options]
    os.chdir(ROOT)
    sys.stdout.flush()
    if os.name == "posix":
        os.execv(str(python), [str(python), *arguments])
    import signal
    import subprocess
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    return subprocess.call([str(python), *arguments])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
