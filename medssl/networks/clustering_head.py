"""The clustering head of SSLDEC: distances to trainable centers in place of a softmax."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable

import torch
from scipy.cluster.vq import kmeans2
from torch import Tensor, nn

from medssl.errors import ConfigError
from medssl.functional.clustering import class_means, log_soft_assignment
from medssl.networks.modes import evaluating

ABSENT = -30.0
"""Log score of a class that has no cluster (background outside the mask)."""

STARTS = ("random", "class_means", "kmeans")
"""Where centers start from, see `ClusteringNetwork.start_centers`."""

MOST_POINTS = 100_000
"""Embeddings that k-means works on; a larger number is drawn down to that."""

ITERATIONS = 20
"""Lloyd iterations of k-means."""


class ClusteringHead(nn.Module):
    """Assign embeddings to one cluster a class.

    Args:
        features: D, channels of the embedding.
        clusters: K, classes that have a cluster.
        alpha: Degrees of freedom of the Student-t similarity; saved with the weights.

    Shapes:
        ``(B, D, *spatial)`` to log q ``(B, K, *spatial)``

    Notes:
        The centers start uniform within Glorot's bound and are trained with everything else. They take no
        weight decay: see `parameter_groups`.
    """

    def __init__(self, features: int, clusters: int, alpha: float = 1.0) -> None:
        super().__init__()
        if not 0 < alpha < math.inf or features < 1 or clusters < 2:
            msg = (
                f"The clustering head cannot be built: found alpha={alpha}, {features} features, {clusters} clusters; "
                f"expected a finite alpha > 0, at least one feature and two clusters."
            )
            raise ConfigError(msg)
        self.peak_maps = (
            3 * features + clusters + 1
        )  # embedding, difference to a center, its square; what is summed
        self.centers = nn.Parameter(torch.empty(clusters, features))
        self.register_buffer("alpha", torch.tensor(float(alpha)))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the centers anew."""
        nn.init.xavier_uniform_(self.centers)

    def forward(self, z: Tensor) -> Tensor:
        """Return the log soft assignments."""
        return log_soft_assignment(z, self.centers, self.alpha)


class ClusteringNetwork(nn.Module):
    """A backbone whose output channels are an embedding, and the head that clusters it.

    Everything above the head sees one score a label, background first, whose softmax is the assignment:
    losses, inference and bundles need no second way.

    Args:
        backbone: Network with D output channels and no activation after the last layer.
        features: D.
        labels: Number of labels, background included.
        background: Whether background has a cluster of its own. Without it (scans with a brain mask) its
            score is `ABSENT`, and the mask puts it back.
        alpha: See `ClusteringHead`.

    Shapes:
        ``(B, C, *spatial)`` to ``(B, labels, *spatial)``

    Attributes:
        multiple, deep_window: As in the backbone; 16 and None where it does not say.
        peak_maps: As in the backbone, or what the head keeps alive if that is more.
        first: Number of the first label that has a cluster, 0 or 1.

    Source:
        Enguehard, O'Halloran, Gholipour: Semi-supervised learning with deep embedded clustering, IEEE
        Access 2019; form of the head after the authors' public code.
    """

    def __init__(
        self,
        backbone: nn.Module,
        features: int,
        labels: int,
        *,
        background: bool = False,
        alpha: float = 1.0,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.first = 0 if background else 1
        self.absent = ABSENT  # TorchScript sees no global numbers
        self.head = ClusteringHead(features, labels - self.first, alpha)
        self.multiple = int(getattr(backbone, "multiple", 16))
        self.deep_window = getattr(backbone, "deep_window", None)
        self.peak_maps = max(int(getattr(backbone, "peak_maps", 256)), self.head.peak_maps)

    def forward(self, x: Tensor) -> Tensor:
        """Return log scores of all labels."""
        log_q = self.head(self.backbone(x))
        if self.first == 0:
            return log_q
        return torch.cat([torch.full_like(log_q[:, :1], self.absent), log_q], dim=1)

    @torch.no_grad()
    def start_centers(
        self,
        start: str,
        labeled: Iterable[tuple[Tensor, Tensor]],
        unlabeled: Iterable[tuple[Tensor, Tensor]] = (),
    ) -> Tensor:
        """Put the centers where training shall start from; cluster j stays class j.

        Args:
            start: "random" leaves them as they are, "class_means" puts each where the labeled elements of its
                class are on average, "kmeans" goes on from there by Lloyd iterations over labeled and unlabeled
                elements. A class without labeled elements starts from the center it has; a cluster that
                Lloyd's iterations leave empty gets its mean back.
            labeled: Images and their labels (channel numbers, 255 unknown). Read once.
            unlabeled: Images and which of their elements are in the mask. Read once, for "kmeans" only.

        Returns:
            How many labeled elements each class mean is made of; zeros for "random".

        Raises:
            ConfigError: There is no such start.

        Shapes:
            images ``(B, C, *spatial)``, labels ``(B, *spatial)``, masks ``(B, *spatial)`` bool; return ``(K,)``

        Notes:
            Means follow the embedding: call it after a short warm-up, not on a network as it was drawn.

        Source:
            "random": the authors' code, trained by back-propagation from the first step on. k-means: the
            original DEC (Xie et al. 2016), there over many random starts on an auto-encoder's features.
            "class_means", and k-means started from them: this package's choice.
        """
        if start not in STARTS:
            msg = f"Unknown start of the cluster centers: found {start!r}, expected one of {STARTS}."
            raise ConfigError(msg)
        sums = torch.zeros(self.head.centers.shape, dtype=torch.float64)
        counts = torch.zeros(len(sums), dtype=torch.float64)
        if start == "random":
            return counts
        points = _Sample(sums.shape[1])
        with evaluating(self):
            for image, label in labeled:
                z, cluster = self.backbone(image), label - self.first
                some, count = class_means(z, cluster, len(sums))
                sums, counts = sums + some.cpu(), counts + count.cpu()
                points.add(z, (cluster >= 0) & (cluster < len(sums)))
            for image, valid in unlabeled if start == "kmeans" else ():
                points.add(self.backbone(image), valid)
        means = sums / counts.clamp_min(1)[:, None]
        means = torch.where(counts[:, None] > 0, means, self.head.centers.cpu().double())
        self.head.centers.copy_(_lloyd(points.kept, means) if start == "kmeans" else means)
        return counts


def parameter_groups(network: nn.Module, weight_decay: float) -> list[dict[str, object]]:
    """Split the parameters of a network for an optimizer: cluster centers take no weight decay.

    Args:
        network: Any network; one without centers gives one group.
        weight_decay: Of all others.
    """
    centers = [module.centers for module in network.modules() if isinstance(module, ClusteringHead)]
    apart = {id(center) for center in centers}
    others = [parameter for parameter in network.parameters() if id(parameter) not in apart]
    groups: list[dict[str, object]] = [{"params": others, "weight_decay": weight_decay}]
    return [*groups, {"params": centers, "weight_decay": 0.0}] if centers else groups


class _Sample:
    """Embeddings out of a stream, each kept with the same probability."""

    def __init__(self, features: int) -> None:
        self.generator = torch.Generator().manual_seed(0)
        self.kept = torch.empty(0, features)
        self.keys = torch.empty(0, dtype=torch.float64)

    def add(self, z: Tensor, valid: Tensor) -> None:
        """Draw a random key for each new element; those with the least keys stay."""
        points = z.movedim(1, -1)[valid].float().cpu()
        keys = torch.rand(len(points), dtype=torch.float64, generator=self.generator)
        self.keys, order = torch.cat([self.keys, keys]).sort()
        self.kept = torch.cat([self.kept, points])[order[:MOST_POINTS]]
        self.keys = self.keys[:MOST_POINTS]


def _lloyd(points: Tensor, start: Tensor) -> Tensor:
    """Return the centers that k-means finds from a start; an empty cluster stays at its start."""
    if not len(points):
        return start
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="One of the clusters is empty")
        centers, member = kmeans2(points.double().numpy(), start.numpy(), iter=ITERATIONS, minit="matrix")
    members = torch.from_numpy(member).long().bincount(minlength=len(start))
    return torch.where(members[:, None] > 0, torch.from_numpy(centers), start)
