"""MedNIST (58,954 files, 58,514 different images, 64 x 64 gray, six kinds of scan) in medssl's layout.

    python data_scripts/mednist.py SOURCE OUT
    python data_scripts/mednist.py mednist_subset.tar OUT --partial

SOURCE is the archive (.tar, .tar.gz), or the folder with one folder a class. Repeated images are left out. There is
no published test set: a share is drawn by --seed. CC BY-SA 4.0 (B. J. Erickson, Mayo Clinic).
"""

from __future__ import annotations

import io
import tarfile
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath

import numpy as np
from common import Picture, add_drawing, parser, pictures_of_folders, run, write_dataset
from PIL import Image

from medssl.errors import InputError

COUNTS = {"images": 58_514, "classes": 6}


def pictures(source: Path) -> Iterator[Picture]:
    """Yield each image once, however often it is stored."""
    seen = set()
    for picture in pictures_of_folders(source) if source.is_dir() else _pictures_of_archive(source):
        content = picture.pixels.tobytes()
        if content not in seen:
            seen.add(content)
            yield picture


def _pictures_of_archive(source: Path) -> Iterable[Picture]:
    """Yield the images of CLASS/NAME.jpeg at any depth; nothing is unpacked to the disk."""
    try:
        with tarfile.open(source) as archive:
            for member in archive:
                place = PurePosixPath(member.name)
                stream = archive.extractfile(member) if member.isfile() else None
                if stream and place.suffix.lower() in {".jpeg", ".jpg"} and not place.name.startswith("."):
                    with Image.open(io.BytesIO(stream.read()), formats=["JPEG"]) as image:
                        yield Picture(np.array(image.convert("L")), place.parent.name, place.stem)
    except (OSError, EOFError, SyntaxError, tarfile.TarError, zlib.error) as error:
        msg = f"{source} is no complete archive of JPEG images ({error})."
        raise InputError(msg, "Give MedNIST.tar.gz, or the folder that it holds.") from error


if __name__ == "__main__":
    made = parser(__doc__)
    add_drawing(made, test_share=0.2)
    given = made.parse_args()
    run(lambda: write_dataset(given, pictures(given.source), COUNTS, (given.test_share, given.seed)))
