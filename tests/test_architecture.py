"""What import-linter cannot see: light imports, third-party homes, no environment, no paths."""

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterable, Iterator
from functools import cache
from itertools import accumulate
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "medssl"
HOMES = {
    "nibabel": {"io", "simulation", "geometry.py"},
    "nilearn": {"simulation"},
    "SimpleITK": {"io", "registration"},
    "matplotlib": {"reporting"},
    "jinja2": {"reporting"},
    "openvino": {"inference"},
    "onnxruntime": {"inference"},
    "click": {"cli"},
    "rich": {"cli"},
    "timm": {"networks"},
    "monailabel": {"label_app"},
}
"""Third-party package -> the rooms that may import it."""


@cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def dotted(nodes: Iterable[ast.AST]) -> Iterator[str]:
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (one.name for one in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{one.name}" for one in node.names)


def imports(path: Path) -> set[str]:
    return {name.split(".")[0] for name in dotted(ast.walk(parsed(path)))}


def modules() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def name_of(path: Path) -> str:
    return ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__")


@pytest.mark.parametrize("package", HOMES)
def test_third_party_packages_stay_in_their_homes(package):
    users = {path.relative_to(PACKAGE).parts[0] for path in modules() if package in imports(path)}
    assert users <= HOMES[package]


def test_bundle_workflows_are_known_to_the_top_floors_only():
    users = [path for path in modules() if "monai.bundle" in path.read_text()]
    assert {path.relative_to(PACKAGE).parts[0] for path in users} <= {"workflows", "cli"}


@pytest.mark.parametrize(
    ("statement", "absent"),
    [
        ("import medssl", ["torch", "numpy"]),
        ("import medssl.cli.simulate, medssl.cli.train, medssl.cli.segment", ["torch", "monai", "numpy"]),
        ("import medssl.io.cohort, medssl.io.nifti, medssl.io.inspection", ["torch", "monai"]),
        ("import medssl.workflows.check, medssl.workflows.simulate", ["torch", "monai"]),
        ("import medssl.workflows.segment", ["nilearn"]),
    ],
)
def test_imports_are_light(statement, absent):
    code = f"import sys; {statement}; print([name for name in {absent!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_help_answers_without_torch():
    run = "from medssl.cli import main; main(['--help'], standalone_mode=False)"
    code = f"import sys; {run}; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip().endswith("False")


def test_the_package_reads_no_environment_and_prints_nothing():
    for path in modules():
        text = path.read_text()
        assert "os.environ" not in text or "cli" in path.parts, path
        assert not re.search(r"^\s*print\(", text, re.MULTILINE), path


def test_no_committed_text_names_a_place_on_a_machine():
    root = PACKAGE.parent
    texts = [
        path
        for folder in ("medssl", "bundles", "benchmarks", "data_scripts", "docs")
        for path in (root / folder).rglob("*")
        if path.suffix in {".py", ".yaml", ".json", ".md", ".toml", ".j2"}
    ]
    places = re.compile(r"/home/|/root/|/work/|/workspace|/tmp/|/opt/|C:\\\\")
    assert texts
    assert not [path for path in texts if places.search(path.read_text())]


def test_every_module_says_what_it_is():
    assert not [path for path in modules() if not ast.get_docstring(ast.parse(path.read_text()))]


DISTRIBUTIONS = {
    "PIL": "pillow",
    "SimpleITK": "simpleitk",
    "ignite": "pytorch-ignite",
    "yaml": "pyyaml",
}
"""Import name -> name in pyproject.toml, where the two differ."""

OF_OTHERS = {
    "monailabel": "has an environment of its own (make label)",
    "fastapi": "comes with monailabel",
    "starlette": "comes with monailabel",
    "huggingface_hub": "comes with timm",
    "psutil": "used by the label app alone, whose environment has it",
}
"""Import name -> why it is not declared."""


EXTRAS = ("fast", "export", "classify")
"""Those that users install."""


def declared(*extras: str) -> set[str]:
    """Distributions that are installed with some extras."""
    told = tomllib.loads((PACKAGE.parent / "pyproject.toml").read_text())["project"]
    lines = [
        *told["dependencies"],
        *(line for extra in extras for line in told["optional-dependencies"][extra]),
    ]
    return {re.split(r"[<>= ]", line)[0] for line in lines}


def distributions(names: Iterable[str]) -> set[str]:
    others = {name.split(".")[0] for name in names} - sys.stdlib_module_names - {"medssl"}
    return {DISTRIBUTIONS.get(name, name) for name in others - OF_OTHERS.keys()}


def test_what_is_imported_is_declared():
    """D21: a clean environment has what we say that we need, not what ours happens to hold."""
    found = {name for path in modules() for name in imports(path)}
    assert distributions(found) <= declared(*EXTRAS)
    assert OF_OTHERS.keys() <= found


def at_import(path: Path) -> Iterator[ast.AST]:
    """What runs when a module is imported: nothing in functions, nothing for type checkers alone."""
    nodes: list[ast.AST] = [parsed(path)]
    while nodes:
        node = nodes.pop()
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            continue
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node
            nodes += ast.iter_child_nodes(node)


def reached(verbs: str) -> set[Path]:
    """All modules that some modules of the command line import, at once or when they run."""
    known = {name_of(path): path for path in modules()}
    found: set[Path] = set()
    some = set((PACKAGE / "cli").glob(verbs))
    while some:
        found |= some
        names = {name for path in some for name in dotted(ast.walk(parsed(path)))}
        parts = {part for name in names for part in accumulate(name.split("."), "{}.{}".format)}
        some = {known[part] for part in parts & known.keys()} - found
    return found


VERBS = {"*.py": (), "classify/*.py": ("classify",)}
"""Modules of the command line -> the extras without which they need not work; the first are those for scans."""


@pytest.mark.parametrize("verbs", VERBS)
def test_what_a_verb_imports_comes_with_its_own_extra(verbs):
    """D21: it is not enough that some other extra has it."""
    paths = reached(verbs)
    assert len(paths) > 100
    found = {name for path in paths for name in dotted(at_import(path))}
    assert distributions(found) <= declared(*VERBS[verbs])


def test_what_an_extra_brings_is_imported_where_it_is_used():
    optional = declared(*EXTRAS) - declared() - {"pillow"}  # every image is read with it
    assert not [path for path in modules() if distributions(dotted(at_import(path))) & optional]


def test_scans_need_no_extra():
    """D21: help, and all that the verbs for scans import, where no extra is installed."""
    names = {distribution: name for name, distribution in DISTRIBUTIONS.items()}
    optional = declared(*EXTRAS) - declared() - {"pillow"}  # comes with matplotlib
    absent = sorted(names.get(one, one) for one in optional)
    code = f"""
import sys
from importlib import import_module
sys.modules.update(dict.fromkeys({absent}))
from medssl.cli import main
for words in (["--help"], ["train", "--help"]):
    main(words, standalone_mode=False)
for name in {[name_of(path) for path in sorted(reached("*.py"))]}:
    import_module(name)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "medssl train" in done.stdout
