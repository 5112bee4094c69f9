"""Look at a Python from inside and write what was found as JSON: run by `doctor` there, with nothing but Python."""

import importlib
import json
import sys
from importlib import metadata

PACKAGES = (
    "monailabel", "monai", "medssl", "torch", "torchvision", "numpy", "pydicom", "pynetdicom", "dicomweb-client",
    "pydicom-seg", "fastapi", "starlette", "uvicorn", "pydantic", "numpymaxflow", "SAM-2", "sam2", "openvino",
)  # fmt: skip
MODULES = (
    "distutils.util",
    "cgi",
    "torchvision",
    "pydicom_seg",
    "dicomweb_client",
    "pynetdicom",
    "psutil",
    "multipart",
    "uvicorn",
    "medssl.label_app.origins",
    "medssl.label_app.main",
    "monailabel.interfaces.app",
)
"""Imported one by one; the last ones are what the server needs."""


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return ""


def _problem(name: str) -> str:
    try:
        importlib.import_module(name)
    except BaseException as error:  # noqa: BLE001 - whatever it is belongs into the answer
        return f"{type(error).__name__}: {error}"
    return ""


def facts() -> dict[str, object]:
    """Return the version of this Python, of the packages, and why a module cannot be imported."""
    return {
        "python": list(sys.version_info[:3]),
        "versions": {name: _version(name) for name in PACKAGES},
        "problems": {name: _problem(name) for name in MODULES},
    }


if __name__ == "__main__":
    found = facts()
    sys.stdout.write("\n" + json.dumps(found) + "\n")
