"""predict.pyz: those modules of the package that classify with an exported file and need no torch, as one file."""

from __future__ import annotations

import zipfile
from importlib import resources
from pathlib import Path

from medssl.io.files import atomic_path

MODULES = (
    "errors",
    "functional.image_preparation",
    "inference.backends.quiet_imports",
    "inference.onnx_runner",
    "inference.standalone",
    "io.dicom",
    "io.files",
    "io.image_cohort",
    "io.image_facts",
    "io.image_items",
    "io.image_manifest",
    "io.image_tree",
    "io.images",
    "io.prediction_table",
    "io.subjects",
    "labels",
)
"""Of `medssl`; a test holds them to what the script imports."""

MAIN = "from medssl.inference.standalone import main\n\nraise SystemExit(main())\n"

DATE = (1980, 1, 1, 0, 0, 0)
"""Of everything in the archive, so that it is the same each time."""


def write_standalone(path: Path) -> None:
    """Write the archive, which Python runs as it is.

    Args:
        path: The file, named ``.pyz``.

    Raises:
        OutputError: It cannot be written.
    """
    package = resources.files("medssl")
    rooms = {name.rpartition(".")[0] for name in MODULES} | {"", "inference"}
    texts = {"__main__.py": MAIN}
    for room in rooms:
        inside = "/".join(room.split(".")) + "/" if room else ""
        texts[f"medssl/{inside}__init__.py"] = package.joinpath(f"{inside}__init__.py").read_text("utf-8")
    for name in MODULES:
        inside = f"{name.replace('.', '/')}.py"
        texts[f"medssl/{inside}"] = package.joinpath(inside).read_text("utf-8")
    with atomic_path(path) as temporary, zipfile.ZipFile(temporary, "w") as archive:
        for name in sorted(texts):
            entry = zipfile.ZipInfo(name, DATE)
            entry.create_system = 3  # as on Linux, wherever it is written
            archive.writestr(entry, texts[name], zipfile.ZIP_DEFLATED)
