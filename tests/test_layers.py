"""Imports go downwards only; heavy packages are imported where they belong."""
from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = "lib_sdtrain"

# From the top down. A part may import the parts below it and, of its own row, only what ALLOWED names.
ROWS = [
    {"__main__", "cli", "ui", "api"},
    {"quality"},
    {"toybox.make"},
    {"jobs"},
    {"host"},
    {"train"},
    {"merge", "sample"},
    {"data", "toybox"},
    {"model"},
    {"presets"},
    {"settings", "events", "errors", "textfiles", "durable", "places", "entry", "imports"},
]
ALLOWED = {
    ("__main__", "cli"),
    ("cli", "ui"), ("cli", "api"),          # `ui` is one of the commands
    ("ui", "api"),
    ("toybox", "data"),
    ("settings", "errors"), ("settings", "textfiles"), ("textfiles", "errors"), ("events", "errors"),
    ("places", "errors"), ("textfiles", "places"),
}
# Nothing but the standard library, with these exceptions.
STANDARD_LIBRARY_ONLY = {name: {"yaml"} if name == "textfiles" else set() for name in ROWS[-1]}
ENGINE = set().union(*ROWS[1:]) - {"host"}
HEAVY = {"torch", "diffusers", "transformers", "scipy", "torchsde"}


IMPORT_ALL = "import importlib, sys; [importlib.import_module(name) for name in sys.argv[1:]]; print(*sys.modules)"


def modules() -> dict[str, ast.Module]:
    """Dotted name within the package -> syntax tree."""
    found = {}
    for path in sorted((ROOT / PACKAGE).rglob("*.py")):
        name = ".".join(path.relative_to(ROOT / PACKAGE).with_suffix("").parts)
        found[name] = ast.parse(path.read_text(encoding="utf-8"))
    return found


MODULES = modules()


def imports(name: str, tree: ast.AST, only_at_start: bool = False) -> Iterator[str]:
    """Absolute dotted names that the module imports: anywhere, or only where its import runs them."""
    for node in at_start(tree) if only_at_start else ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parts = [PACKAGE, *name.split(".")][:-node.level]
                base = ".".join([*parts, *([base] if base else [])])
            yield base
            yield from (f"{base}.{alias.name}" for alias in node.names)


def at_start(tree: ast.AST) -> Iterator[ast.AST]:
    """The nodes that run when the module is imported: not the functions' bodies, nor what only type checkers see."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            continue
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            continue
        yield node
        yield from at_start(node)


def part(dotted: str) -> str:
    """The part of the architecture to which a module belongs: its package, or its file at the top."""
    return "toybox.make" if dotted.startswith("toybox.make") else dotted.partition(".")[0]


def row(name: str) -> int:
    return next(number for number, names in enumerate(ROWS) if name in names)


def own_parts(name: str, tree: ast.AST) -> set[str]:
    prefix = f"{PACKAGE}."
    known = set().union(*ROWS)
    return {part(target.removeprefix(prefix)) for target in imports(name, tree) if target.startswith(prefix)} & known


def foreign(name: str, tree: ast.AST, only_at_start: bool = False) -> set[str]:
    return {target.split(".")[0] for target in imports(name, tree, only_at_start)} - {PACKAGE, ""}


def test_every_part_has_its_place():
    parts = {part(name) for name in MODULES} - {"__init__"}
    assert parts
    assert parts <= set().union(*ROWS)


def test_imports_go_downwards():
    wrong = []
    for name in MODULES.keys() - {"__init__"}:      # the package's own door hands out the engine's entries, lazily
        here = part(name)
        wrong += [f"{name} imports {target}" for target in own_parts(name, MODULES[name]) - {here}
                  if row(target) <= row(here) and (here, target) not in ALLOWED]
    assert sorted(wrong) == []


def test_the_lowest_layer_needs_the_standard_library_only():
    for name, tree in MODULES.items():
        if part(name) in STANDARD_LIBRARY_ONLY:
            assert foreign(name, tree) <= sys.stdlib_module_names | STANDARD_LIBRARY_ONLY[part(name)], name


def test_only_the_host_imports_the_webui():
    for name, tree in MODULES.items():
        if part(name) != "host":
            assert not foreign(name, tree) & {"modules", "modules_forge", "backend", "ldm", "sgm", "k_diffusion"}, name


def test_the_engine_knows_no_gradio():
    for name, tree in MODULES.items():
        if part(name) in ENGINE:
            assert not foreign(name, tree) & {"gradio", "fastapi", "starlette"}, name


def test_the_tab_and_the_settings_never_import_torch():
    for name, tree in MODULES.items():
        if part(name) in ("ui", "settings"):
            assert not foreign(name, tree) & HEAVY, name


def test_diffusers_and_transformers_are_imported_inside_functions_only():
    for name, tree in MODULES.items():
        assert not foreign(name, tree, only_at_start=True) & {"diffusers", "transformers"}, name


def test_scripts_define_nothing():
    for path in sorted((ROOT / "scripts").glob("*.py")):
        defined = [node.name for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
                   if isinstance(node, (ast.FunctionDef, ast.ClassDef))]
        assert not defined, path.name


def test_the_tab_and_the_commands_start_without_torch():
    """Not even through something that they import: torch costs seconds at the WebUI's start."""
    names = [f"{PACKAGE}.{name}".removesuffix(".__init__") for name, tree in MODULES.items()
             if (part(name) in ("ui", "settings") or name.startswith(("cli.main", "cli.commands")))
             and f"{PACKAGE}.host.webui" not in imports(name, tree)]        # that one is inside the WebUI already
    done = subprocess.run([sys.executable, "-c", IMPORT_ALL, *names], cwd=ROOT, capture_output=True, text=True,
                          check=False)
    assert done.returncode == 0, done.stderr
    imported = set(done.stdout.split())
    assert {f"{PACKAGE}.settings.run", f"{PACKAGE}.cli.commands.train", "gradio"} <= imported
    assert imported & HEAVY == set()
