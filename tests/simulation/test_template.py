"""The cut-down template holds the cerebrum and nothing below it."""

import numpy as np
from scipy import ndimage

from medssl.simulation.template import cerebrum_template


def _tissue_at(mni_mm: tuple[int, int, int]) -> float:
    template = cerebrum_template()
    i, j, k = (np.array(mni_mm) - template.origin_mm).astype(int)
    return float(template.gray[i, j, k] + template.white[i, j, k])


def test_cerebellum_and_brain_stem_are_gone() -> None:
    for place in ((0, -30, -35), (0, -62, -20), (25, -65, -40), (-25, -65, -40)):
        assert _tissue_at(place) == 0


def test_thalamus_and_all_lobes_are_kept() -> None:
    for place in ((10, -18, 8), (25, 40, 20), (45, -60, 30), (15, -88, 5), (50, -15, -22)):
        assert _tissue_at(place) > 0.5


def test_envelope_is_one_piece() -> None:
    assert ndimage.label(cerebrum_template().depth > 0)[1] == 1


def test_ventricles_lie_in_the_middle() -> None:
    template = cerebrum_template()
    x = np.arange(template.gray.shape[0]) + template.origin_mm[0]
    weight = template.ventricles.sum(axis=(1, 2))
    assert abs(float((weight * x).sum() / weight.sum())) < 2
    assert float(template.ventricles.max()) > 0.9
