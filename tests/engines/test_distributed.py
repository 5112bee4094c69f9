import subprocess
import sys
from pathlib import Path

import pytest
import torch
from engines.gradients_of_rank import OBJECTIVES, batch, gradients, network

SCRIPT = Path(__file__).parent / "gradients_of_rank.py"


@pytest.fixture(scope="module")
def of_two(tmp_path_factory):
    """Gradients of each of two processes, by objective."""
    folder = tmp_path_factory.mktemp("ranks")
    started = [subprocess.Popen([sys.executable, SCRIPT, folder, str(rank), "2"]) for rank in range(2)]
    assert [process.wait() for process in started] == [0, 0]
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(2)]


@pytest.mark.slow
@pytest.mark.parametrize("objective", OBJECTIVES)
def test_two_processes_find_the_gradients_and_the_loss_of_one(of_two, objective):
    """Invariant 10; the loss is the mean over processes, as distributed training averages their gradients.

    The batch Dice looks at the crops of one process together, so only the cross-entropy can be the same.
    """
    alone = gradients(network(), batch(), objective)
    one, other = (dict(found[objective]) for found in of_two)
    losses = [found.pop("loss") for found in (one, other)]
    torch.testing.assert_close(sum(losses) / 2, alone.pop("loss"), rtol=1e-12, atol=0)
    assert alone["0.weight"].dtype == torch.float64
    for name, expected in alone.items():
        assert torch.equal(one[name], other[name]), name
        torch.testing.assert_close(one[name], expected, rtol=1e-9, atol=1e-12)
