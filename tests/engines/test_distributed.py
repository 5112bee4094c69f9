import subprocess
import sys
from pathlib import Path

import pytest
import torch
from engines.gradients_of_rank import batch, gradients, network

SCRIPT = Path(__file__).parent / "gradients_of_rank.py"


@pytest.mark.slow
def test_two_processes_find_the_gradients_of_one(tmp_path):
    """The batch Dice looks at the crops of one process together, so only the cross-entropy can be the same."""
    started = [subprocess.Popen([sys.executable, SCRIPT, tmp_path, str(rank), "2"]) for rank in range(2)]
    assert [process.wait() for process in started] == [0, 0]
    alone = gradients(network(), batch())
    both = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2)]
    assert alone["0.weight"].dtype == torch.float64
    for name, expected in alone.items():
        assert torch.equal(both[0][name], both[1][name]), name
        torch.testing.assert_close(both[0][name], expected, rtol=1e-9, atol=1e-12)
