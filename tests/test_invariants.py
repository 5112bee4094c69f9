"""What SSLDEC has to hold to, whatever changes; the tests that check it say so: "Invariant 4: ..."."""

import re
from pathlib import Path

import pytest

INVARIANTS = {
    1: "q and p are finite and sum to 1 in every precision; q knows distances to the centers only",
    2: "head, gradients, confidence ceiling and loss are the formulas; p and f are constants",
    3: "dec doubles the log-odds and weighs them with the masses; prior with pi like f is sharpen",
    4: "f does not depend on tiles, overlap, order, batches or processes; outside the mask nothing counts",
    5: "labeled targets are one-hot in every round; labels change f through q on the unlabeled scans alone",
    6: "each schedule starts and mixes its rounds as it says; a seed gives one run, bit for bit",
    7: "networks have the published parameter counts and return the sides they are given",
    8: "no weight decay on centers; dead classes and empty masks stay finite; checkpoints keep it all",
    9: "iSeg's files are read and written as the challenge has them",
    10: "no test scan is trained on unsaid; two processes find what one finds",
}
"""Number of each invariant, and what it says."""


@pytest.mark.parametrize("number", INVARIANTS)
def test_an_invariant_has_tests_that_name_it(number):
    found = [
        path.name
        for path in Path(__file__).parent.rglob("test_*.py")
        if re.search(rf"\"\"\"Invariants? (\d+ and )?{number}\b", path.read_text(encoding="utf-8"))
    ]
    assert found, INVARIANTS[number]
