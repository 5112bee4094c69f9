import pytest
import torch

from medssl.engines.checkpoints import RandomState, save_atomically


def test_random_numbers_go_on_where_they_were():
    state = RandomState()
    saved = state.state_dict()
    first = torch.rand(5)
    state.load_state_dict(saved)
    assert torch.equal(torch.rand(5), first)


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "a.pt"
    save_atomically({"x": torch.ones(2)}, path)

    def dies(content, where):
        where.write_bytes(b"half")
        raise OSError

    monkeypatch.setattr(torch, "save", dies)
    with pytest.raises(OSError):  # noqa: PT011 (whatever the disk says)
        save_atomically({"x": torch.zeros(2)}, path)
    assert torch.equal(torch.load(path, weights_only=True)["x"], torch.ones(2))
    assert [one.name for one in tmp_path.iterdir()] == ["a.pt"]
