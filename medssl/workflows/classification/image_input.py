"""What the images of a cohort share: channels and white, decided on all that training may see."""

from __future__ import annotations

import logging
from dataclasses import replace

from medssl.errors import ImageError
from medssl.functional.image_preparation import white_of
from medssl.io.image_cohort import ImageCohort
from medssl.io.image_facts import PixelFacts, pixel_facts
from medssl.io.image_items import ImageItem
from medssl.io.images import read_image

logger = logging.getLogger(__name__)


def channels_of(cohort: ImageCohort) -> int:
    """Return how many channels all images but those to test on share.

    Where gray and color are mixed it is 3; where some gray images are merely stored as three equal channels, 1.

    Raises:
        ImageError: Images of other numbers of channels are mixed, which cannot be turned into each other.
    """
    known = _facts(cohort)
    examples: dict[int, ImageItem] = {}
    for item, facts in known:
        examples.setdefault(facts.channels, item)
    found = sorted(examples)
    if len(found) == 1:
        return found[0]
    if found != [1, 3]:
        named = ", ".join(f"{number} channels ({examples[number].name})" for number in found)
        msg = f"{cohort.root.name} holds images of {named}; expected one number for all."
        cure = "Only gray and color can be turned into each other: leave out or convert the others."
        raise ImageError(msg, cure)
    return 1 if all(facts.gray for _, facts in known) else 3


def white_of_cohort(cohort: ImageCohort) -> int | None:
    """Return the white of images of 16 bits: one depth for all but those to test on; None where there are none.

    Some pixels of each may be brighter, such as text that was burned in.
    """
    levels = [
        (facts.bright, facts.greatest)
        for _, facts in _facts(cohort)
        if facts.bright is not None and facts.greatest is not None
    ]
    if not levels:
        return None
    bright, greatest = (max(some) for some in zip(*levels, strict=True))
    if greatest > 255:
        bright = max(256.0, bright)  # 12 bits at least: a few bright cells may be all there is to see
    white = white_of(bright)
    logger.info(
        "White of the images of 16 bits: %d; what is above it is white too (--white gives another).", white
    )
    return white


def with_facts(cohort: ImageCohort) -> ImageCohort:
    """Return a cohort that knows every image which training may see; those not looked at before are read."""
    return replace(cohort, facts={item.path: facts for item, facts in _facts(cohort)})


def _facts(cohort: ImageCohort) -> list[tuple[ImageItem, PixelFacts]]:
    return [
        (item, cohort.facts.get(item.path) or pixel_facts(read_image(item.path)))
        for item in (*cohort.training, *cohort.validation, *cohort.unlabeled)
    ]
