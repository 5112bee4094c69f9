import pytest
import torch

from medssl.errors import CheckpointError
from medssl.io.checkpoint import ModelCard, card_of, load_weights, read_checkpoint, start_from
from medssl.labels import BRAIN_TISSUES

CARD = ModelCard(("T1w", "T2w"), BRAIN_TISSUES.rows(), (1, 1, 1))


def network(outputs=4):
    return torch.nn.Sequential(torch.nn.Conv3d(2, 3, 1), torch.nn.Conv3d(3, outputs, 1))


@pytest.fixture
def weights(tmp_path):
    path = tmp_path / "model.pt"
    torch.save(CARD.attached_to(network().state_dict()), path)
    return path


def test_the_card_travels_in_a_flat_state_dict(weights):
    content = read_checkpoint(weights)
    assert list(content) == list(network().state_dict())
    assert card_of(content) == CARD
    assert card_of(content).table.values == BRAIN_TISSUES.values


def test_weights_load_into_their_network_alone(weights):
    load_weights(network(), weights, CARD)
    with pytest.raises(CheckpointError, match="0 parameters missing, 0 not expected, 2 of another shape"):
        load_weights(network(5), weights, CARD)


@pytest.mark.parametrize(
    ("other", "words"),
    [
        (ModelCard(("T1w",), BRAIN_TISSUES.rows(), (1, 1, 1)), "contrasts"),
        (ModelCard(("T1w", "T2w"), BRAIN_TISSUES.rows()[:2], (1, 1, 1)), "label table"),
        (ModelCard(("T1w", "T2w"), BRAIN_TISSUES.rows(), (2, 2, 2)), "spacing"),
    ],
)
def test_another_card_is_refused(weights, other, words):
    with pytest.raises(CheckpointError, match=words):
        load_weights(network(), weights, other)


def test_a_start_leaves_out_the_head_of_another_table(weights):
    fresh = network(7)
    assert start_from(fresh, str(weights), CARD) == ["1.weight", "1.bias"]
    assert torch.equal(fresh[0].weight, read_checkpoint(weights)["0.weight"])


def test_a_start_from_other_contrasts_is_refused(weights):
    with pytest.raises(CheckpointError, match="trained on"):
        start_from(network(), str(weights), ModelCard(("T1w", "FLAIR"), BRAIN_TISSUES.rows(), (1, 1, 1)))


def test_no_start_changes_nothing():
    assert start_from(network(), None, CARD) == []
