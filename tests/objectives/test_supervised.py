import pytest
import torch

from medssl.errors import ConfigError
from medssl.functional.supervised import masked_cross_entropy, masked_dice_loss
from medssl.networks import DenseFCN
from medssl.objectives import SupervisedLoss


def test_loss_is_the_weighted_sum_of_its_terms():
    logits, label = torch.randn(1, 3, 4, 4, 4), torch.randint(0, 3, (1, 1, 4, 4, 4))
    expected = masked_cross_entropy(logits, label[:, 0]) + 0.3 * masked_dice_loss(logits, label[:, 0])
    assert SupervisedLoss(dice_weight=0.3)(logits, label).item() == pytest.approx(expected.item())
    assert SupervisedLoss(dice_weight=0)(logits, label).item() == pytest.approx(
        masked_cross_entropy(logits, label[:, 0]).item()
    )


def test_a_small_network_overfits_one_crop():
    torch.manual_seed(0)
    network = DenseFCN(1, 3, growth_rate=4, stem_channels=8, block_layers=1, levels=2, dropout_prob=0.0)
    image = torch.randn(1, 1, 16, 16, 16)
    label = (image > 0).long() + (image > 1).long()
    optimizer, loss_function = torch.optim.Adam(network.parameters(), 0.02), SupervisedLoss()
    losses = []
    for _ in range(30):
        optimizer.zero_grad()
        loss = loss_function(network(image), label)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.15 * losses[0]


def test_class_weights_and_smoothing_reach_the_cross_entropy():
    logits, label = torch.randn(2, 3, 4, 4, 4), torch.randint(0, 3, (2, 1, 4, 4, 4))
    loss = SupervisedLoss(
        dice_weight=0.0, label_smoothing=0.1, class_weight=[1, 2, 3], log_prior=[-1, -2, -0.5]
    )
    expected = masked_cross_entropy(
        logits,
        label[:, 0],
        label_smoothing=0.1,
        class_weight=torch.tensor([1.0, 2, 3]),
        weight=torch.tensor([1.0, 3]),
        log_prior=torch.tensor([-1, -2, -0.5]),
    )
    assert loss(logits, label, torch.tensor([[1.0], [3]])).item() == pytest.approx(expected.item())


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"label_smoothing": 1.0}, "label_smoothing 1.0"),
        ({"class_weight": [1, -1]}, "none below 0"),
        ({"log_prior": [0.0, float("-inf")]}, "one finite number a class"),
    ],
)
def test_numbers_out_of_range_are_refused(options, words):
    with pytest.raises(ConfigError, match=words):
        SupervisedLoss(**options)


def test_other_class_weights_than_classes_are_refused():
    with pytest.raises(ConfigError, match="2 class weights for 3 classes"):
        SupervisedLoss(class_weight=[1, 1])(torch.randn(1, 3, 2), torch.zeros(1, 1, 2))
    with pytest.raises(ConfigError, match="2 log priors for 3 classes"):
        SupervisedLoss(log_prior=[-1, -1])(torch.randn(1, 3, 2), torch.zeros(1, 1, 2))
