import pytest
import torch

from medssl.errors import CheckpointError
from medssl.io.checkpoint import ModelCard, card_of, load_weights, read_checkpoint, start_from
from medssl.labels import BRAIN_TISSUES
from medssl.networks import ClusteringNetwork

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


def clustered(alpha=16.0, features=6, labels=4):
    return ClusteringNetwork(network(features), features, labels, alpha=alpha)


def test_a_file_of_weights_keeps_the_whole_head(tmp_path):
    """Invariant 8: alpha, D, K, and the order of the classes, which a center knows by its row alone."""
    given, fresh = clustered(alpha=2.5), clustered(alpha=1.0)
    torch.save(CARD.attached_to(given.state_dict()), tmp_path / "clustered.pt")
    load_weights(fresh, tmp_path / "clustered.pt", CARD)
    assert float(fresh.head.alpha) == 2.5
    assert fresh.head.centers.shape == (3, 6)
    assert torch.equal(fresh.head.centers, given.head.centers)
    image = torch.randn(1, 2, 4, 4, 4)
    assert torch.equal(fresh(image), given(image))
    first, *others = BRAIN_TISSUES.rows()
    turned = ModelCard(CARD.contrasts, [first, *others[::-1]], CARD.spacing)
    with pytest.raises(CheckpointError, match="label table"):
        load_weights(fresh, tmp_path / "clustered.pt", turned)


def test_a_clustering_head_is_put_on_weights_without_one(weights, caplog):
    fresh = clustered()
    assert start_from(fresh, str(weights), CARD) == ["backbone.1.weight", "backbone.1.bias", "head.centers"]
    assert torch.equal(fresh.backbone[0].weight, read_checkpoint(weights)["0.weight"])
    assert float(fresh.head.alpha) == 16
    assert "start anew" in caplog.text


def test_and_taken_off(tmp_path):
    given, fresh = clustered(), network()
    torch.save(CARD.attached_to(given.state_dict()), tmp_path / "clustered.pt")
    assert start_from(fresh, str(tmp_path / "clustered.pt"), CARD) == ["1.weight", "1.bias"]
    assert torch.equal(fresh[0].weight, given.backbone[0].weight)


def test_degrees_of_freedom_are_those_of_the_run(tmp_path, caplog):
    given, fresh = clustered(alpha=1.0), clustered(alpha=16.0)
    torch.save(CARD.attached_to(given.state_dict()), tmp_path / "clustered.pt")
    assert start_from(fresh, str(tmp_path / "clustered.pt"), CARD) == []
    assert torch.equal(fresh.head.centers, given.head.centers)
    assert float(fresh.head.alpha) == 16
    assert "alpha is 16; clustered.pt had 1" in caplog.text


def test_another_width_of_the_embedding_is_refused(tmp_path):
    torch.save(CARD.attached_to(clustered(features=5).state_dict()), tmp_path / "clustered.pt")
    with pytest.raises(CheckpointError, match="another network"):
        start_from(clustered(), str(tmp_path / "clustered.pt"), CARD)


def test_another_backbone_under_a_head_is_refused(tmp_path, weights):
    wide = ClusteringNetwork(torch.nn.Sequential(torch.nn.Conv3d(2, 9, 1), torch.nn.Conv3d(9, 6, 1)), 6, 4)
    with pytest.raises(CheckpointError, match="another network"):
        start_from(wide, str(weights), CARD)
