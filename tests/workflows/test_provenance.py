import pytest

from medssl.labels import BRAIN_TISSUES
from medssl.workflows.provenance import other_baseline


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, True),
        ({"command": "medssl train cohort --out run --init packaged"}, False),
        ({"command": "medssl train cohort --out run --set init_weights=weights.pt"}, False),
        ({"contrasts": ["T1w"]}, False),
        ({"labels": BRAIN_TISSUES.rows()[:2]}, False),
    ],
)
def test_the_packaged_weights_are_named_where_they_fit_and_were_not_used(changes, said):
    record = {
        "command": "medssl train cohort --out run",
        "contrasts": ["T1w", "T2w"],
        "labels": BRAIN_TISSUES.rows(),
    }
    assert ("--init packaged" in other_baseline(record | changes)) is said
