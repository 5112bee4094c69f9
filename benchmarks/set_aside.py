"""Choose settings without looking at test images: training images take their place.

    python benchmarks/set_aside.py mnist --out mnist/set_aside.csv
    python benchmarks/classification.py --data mnist/set_aside.csv --task mnist --seed 10 --json ROWS

The manifest stands beside the one it was made from; its test images are training images of that, in an order that
`random.Random(seed).shuffle` gives, and the test images of that are in none of its parts.
"""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import click

from medssl.errors import ConfigError
from medssl.io.files import require_absent
from medssl.io.image_cohort import ImageCohort, read_image_cohort, write_manifest


def set_aside(cohort: ImageCohort, number: int, seed: int) -> ImageCohort:
    """Return a cohort whose test images are training images of the one that is given.

    Raises:
        ConfigError: There are not that many training images, or none would be left.
    """
    if not 0 < number < len(cohort.training):
        msg = f"Found {len(cohort.training)} training images; {number} of them cannot be set aside."
        raise ConfigError(msg, "Choose a smaller number.")
    drawn = list(cohort.training)
    random.Random(seed).shuffle(drawn)
    left = set(drawn[number:])
    return replace(
        cohort, training=tuple(item for item in cohort.training if item in left), test=tuple(drawn[:number])
    )


@click.command()
@click.argument("data", type=click.Path(path_type=Path))
@click.option(
    "--out", type=click.Path(path_type=Path), required=True, help="Manifest, in the folder of DATA."
)
@click.option("--images", "number", default=10_000, show_default=True)
@click.option("--seed", default=100, show_default=True)
def main(data: Path, out: Path, number: int, seed: int) -> None:
    """Write a manifest whose test images are training images of DATA."""
    require_absent(out)
    write_manifest(out, set_aside(read_image_cohort(data), number, seed))


if __name__ == "__main__":
    main()
