"""Contrast follows age as myelin does."""

import numpy as np
import pytest

from medssl.simulation.anatomy import Anatomy
from medssl.simulation.contrast import draw_signals


@pytest.fixture(scope="module")
def contrast_at(anatomy: Anatomy) -> dict[float, dict[str, float]]:
    """Return (white - gray) / gray by age and contrast."""
    gray, white = anatomy.gray > 0.98, anatomy.white > 0.98
    return {
        age: {
            name: float(signal[white].mean() / signal[gray].mean() - 1)
            for name, signal in draw_signals(np.random.default_rng(0), anatomy, age).items()
        }
        for age in (3.0, 12.0)
    }


def test_white_matter_brightens_with_age_in_t1w(contrast_at: dict[float, dict[str, float]]) -> None:
    assert contrast_at[3.0]["T1w"] < contrast_at[12.0]["T1w"] - 0.1


def test_white_matter_darkens_with_age_in_t2w(contrast_at: dict[float, dict[str, float]]) -> None:
    assert contrast_at[3.0]["T2w"] > contrast_at[12.0]["T2w"] + 0.05


def test_back_and_center_myelinate_first(anatomy: Anatomy) -> None:
    white = anatomy.white > 0.98
    change = {}
    for age in (2.0, 6.0):
        rng = np.random.default_rng(0)
        change[age] = draw_signals(rng, anatomy, age)["T1w"][white]
    gained = change[6.0] - change[2.0]
    early = (anatomy.posterior[white] > 0.6) & (anatomy.depth[white] > 15)
    late = (anatomy.posterior[white] < 0.3) & (anatomy.depth[white] < 12)
    assert change[2.0][early].mean() > change[2.0][late].mean()
    assert gained.min() > 0


def test_csf_is_darkest_in_t1w_and_brightest_in_t2w(anatomy: Anatomy) -> None:
    signals = draw_signals(np.random.default_rng(1), anatomy, 6.0)
    fluid, tissue = anatomy.inside == 0, anatomy.gray + anatomy.white > 0.98
    assert signals["T1w"][fluid].max() < signals["T1w"][tissue].mean()
    assert signals["T2w"][fluid].min() > signals["T2w"][tissue].mean()
