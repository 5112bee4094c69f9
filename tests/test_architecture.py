"""What import-linter cannot see: light imports, third-party homes, no environment, no paths."""

import ast
import re
import subprocess
import sys
import tomllib
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


def imports(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {name.name.split(".")[0] for name in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module.split(".")[0])
    return found


def modules() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


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


def test_what_is_imported_is_declared():
    """D21: a clean environment has what we say that we need, not what ours happens to hold."""
    told = tomllib.loads((PACKAGE.parent / "pyproject.toml").read_text())["project"]
    users = ("fast", "export", "classify")
    lines = [
        *told["dependencies"],
        *(line for extra in users for line in told["optional-dependencies"][extra]),
    ]
    declared = {re.split(r"[<>= ]", line)[0] for line in lines}
    found = {name for path in modules() for name in imports(path)} - sys.stdlib_module_names - {"medssl"}
    assert {DISTRIBUTIONS.get(name, name) for name in found - OF_OTHERS.keys()} <= declared
    assert OF_OTHERS.keys() <= found
