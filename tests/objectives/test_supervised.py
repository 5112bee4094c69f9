import pytest
import torch

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
