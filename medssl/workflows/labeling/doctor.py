"""What keeps MONAI Label from working here, and the command that cures it: one check a known symptom."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import medssl
from medssl.errors import InputError

PROBE = Path(__file__).with_name("probe.py")
_LONGEST_S = 180


@dataclass(frozen=True)
class Facts:
    """What was found in the label environment.

    Args:
        python: Its version.
        versions: Package -> version, empty where it is missing.
        problems: Module -> why it cannot be imported, empty where it can.
        environment: Variables that are set where the server would be started.
    """

    python: tuple[int, ...]
    versions: Mapping[str, str]
    problems: Mapping[str, str]
    environment: Mapping[str, str]


@dataclass(frozen=True)
class Finding:
    """The outcome of one check.

    Args:
        check: What was looked at.
        ok: Whether the server works as far as this goes.
        found: What was found.
        cure: What to do.
    """

    check: str
    ok: bool
    found: str
    cure: str = ""


def examine(python: Path, environment: Mapping[str, str]) -> list[Finding]:
    """Look at the Python of the label environment.

    Args:
        python: Its program.
        environment: Variables of this process.

    Raises:
        InputError: It cannot be run.
    """
    return findings(read_facts(python, environment))


def read_facts(python: Path, environment: Mapping[str, str]) -> Facts:
    """Run the probe in another Python.

    Raises:
        InputError: It cannot be run, or says nothing.
    """
    try:
        done = subprocess.run(
            [str(python), str(PROBE)],
            capture_output=True,
            text=True,
            timeout=_LONGEST_S,
            check=False,
            cwd=python.parent,
            env={
                name: value for name, value in environment.items() if name not in ("PYTHONPATH", *_STOPPERS)
            },
        )
        told = json.loads(done.stdout.strip().splitlines()[-1])
    except (OSError, subprocess.TimeoutExpired, ValueError, IndexError) as error:
        msg = f"{python} cannot be examined ({type(error).__name__})."
        raise InputError(msg, "Make the environment anew: rm -r .venv-label && make label") from error
    return Facts(tuple(told["python"]), told["versions"], told["problems"], environment)


def findings(facts: Facts) -> list[Finding]:
    """Return the outcome of every check, in the order in which the problems would appear."""
    return [check(facts) for check in _CHECKS]


def healthy(found: Iterable[Finding]) -> bool:
    """Tell whether the server can work."""
    return all(one.ok for one in found)


# ---------------------------------------------------------------------------------------------- the checks

_STOPPERS = ("MONAI_LABEL_CORS_ORIGINS",)
_AGAIN = "Make the environment anew: rm -r .venv-label && make label"


def _python(facts: Facts) -> Finding:
    shown = ".".join(map(str, facts.python))
    lost = [name for name in ("distutils.util", "cgi") if facts.problems.get(name)]
    ok = (3, 11) <= tuple(facts.python[:2]) < (3, 13) and not lost
    why = f"; it lacks {', '.join(lost)}, which monailabel imports" if lost else ""
    return Finding("Python", ok, f"{shown}{why}", "" if ok else "make label PYTHON=python3.11")


def _monailabel(facts: Facts) -> Finding:
    version = facts.versions.get("monailabel", "")
    problem = facts.problems.get("monailabel.interfaces.app", "")
    ok = version == "0.8.5" and not problem
    found = version or "not installed"
    return Finding("MONAI Label 0.8.5 starts", ok, problem or found, "" if ok else _AGAIN)


def _dicom(facts: Facts) -> Finding:
    limits = {"pydicom": (3,), "pynetdicom": (3,), "dicomweb-client": (0, 60)}
    wrong = [
        f"{name} {facts.versions.get(name)}" for name, limit in limits.items() if _reaches(facts, name, limit)
    ]
    broken = [f"{name}: {facts.problems[name]}" for name in ("pydicom_seg",) if facts.problems.get(name)]
    ok = not wrong and not broken
    shown = ", ".join(f"{name} {facts.versions.get(name) or 'missing'}" for name in limits)
    cure = '.venv-label/bin/python -m pip install "pydicom<3" "pynetdicom<3" "dicomweb-client<0.60"'
    return Finding(
        "DICOM packages below their bounds", ok, "; ".join([*wrong, *broken]) or shown, "" if ok else cure
    )


def _numpy(facts: Facts) -> Finding:
    version = facts.versions.get("numpy", "")
    pinned = facts.versions.get("numpymaxflow", "")
    ok = bool(version) and not version.startswith(("0.", "1."))
    found = f"numpy {version or 'missing'}" + (f", numpymaxflow {pinned} wants numpy 1" if pinned else "")
    cure = ".venv-label/bin/python -m pip uninstall -y numpymaxflow && " + _AGAIN.partition(": ")[2]
    return Finding("numpy is not forced to 1.26", ok, found, "" if ok else cure)


def _sam2(facts: Facts) -> Finding:
    there = facts.versions.get("SAM-2") or facts.versions.get("sam2")
    cure = ".venv-label/bin/python -m pip uninstall -y sam2 SAM-2"
    found = f"sam2 {there}: it builds torch again (2.5 GB) and is not used" if there else "left out"
    return Finding("no sam2", not there, found, cure if there else "")


def _torchvision(facts: Facts) -> Finding:
    problem = facts.problems.get("torchvision", "")
    shown = (
        f"torch {facts.versions.get('torch')}, torchvision {facts.versions.get('torchvision') or 'missing'}"
    )
    cure = ".venv-label/bin/python -m pip install --no-deps --force-reinstall -c constraints-label.txt torchvision"
    if "torchvision::" in problem and not facts.problems.get("medssl.label_app.main"):
        found = f"{shown} do not fit each other; our app works around it, the stock app ends with '{problem}'"
        return Finding("torchvision fits torch", ok=True, found=found, cure=f"for the stock app: {cure}")
    return Finding("torchvision fits torch", not problem, problem or shown, cure if problem else "")


def _zoo(facts: Facts) -> Finding:
    set_to = [
        f"{name}={facts.environment[name]}" for name in _ZOO if facts.environment.get(name, "ngc") != "ngc"
    ]
    found = ", ".join(set_to) or "not asked: the server uses the bundle on this disk"
    cure = f"unset {' '.join(_ZOO)} (for the stock app: --conf zoo_source ngc)"
    return Finding("no look-up in the model zoo", not set_to, found, cure if set_to else "")


def _cors(facts: Facts) -> Finding:
    value = facts.environment.get("MONAI_LABEL_CORS_ORIGINS")
    found = (
        "not set" if value is None else f"set to {value}: the stock server ends with 'AnyHttpUrl is not JSON'"
    )
    return Finding(
        "MONAI_LABEL_CORS_ORIGINS is not set",
        value is None,
        found,
        "" if value is None else "unset MONAI_LABEL_CORS_ORIGINS",
    )


def _medssl(facts: Facts) -> Finding:
    version, problem = facts.versions.get("medssl", ""), facts.problems.get("medssl.label_app.main", "")
    ok = version == medssl.__version__ and not problem
    found = problem or f"{version or 'not installed'}, here {medssl.__version__}"
    cure = ".venv-label/bin/python -m pip install --no-deps --editable ."
    return Finding("medssl is the same there", ok, found, "" if ok else cure)


_ZOO = ("MONAI_ZOO_SOURCE", "BUNDLE_DOWNLOAD_SRC")
_CHECKS: tuple[Callable[[Facts], Finding], ...] = (
    _python,
    _dicom,
    _numpy,
    _sam2,
    _torchvision,
    _zoo,
    _cors,
    _monailabel,
    _medssl,
)


def _reaches(facts: Facts, name: str, limit: tuple[int, ...]) -> bool:
    """Tell whether a package is missing or too new."""
    version = facts.versions.get(name, "")
    parts = tuple(int(part) for part in version.split(".")[: len(limit)] if part.isdigit())
    return not version or parts >= limit
