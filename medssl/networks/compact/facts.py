"""What is known of a compact network and of its published weights."""

from __future__ import annotations

from dataclasses import dataclass

from medssl.errors import ConfigError

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

FREE_LICENSES = ("apache-2.0", "bsd-3-clause", "mit", "none")
"""Licenses of weights that ask for no more than a notice; "none": there are no published weights."""


@dataclass(frozen=True)
class NetworkFacts:
    """One network: where it comes from, how its weights want their input, what can be done with it.

    Attributes:
        name: What `build_classifier` knows it by.
        source: "timm", "torchvision" or "medssl".
        id: Its name there, the tag of the weights included.
        family: "standard", "nas", "manual" and "quantized" as in the study; "modern", "test", "small".
        parameters_m: Millions of parameters with 1000 classes (our small networks: 10 classes, gray).
        input_size: Side in pixels that the weights were trained at, or are meant to be.
        mean: Of the weight set, a channel; images are in [0, 1].
        std: Likewise.
        interpolation: Of the weight set: "bilinear" or "bicubic".
        license: Of the weights; "none" where none are published.
        code_license: Of the code that builds it: that of the package `source`, or the one that the file refers to.
        crop: Share of the image that the weight set's own evaluation keeps.
        reparameterize: Whether it has branches to be merged before export.
        int8: The study's quantized networks: the network trained in float32, then made int8.
        fixed_size: Whether its weights depend on the input's size, so that `build_classifier` has to know it.
        least_size: Least side in pixels.
        channels_last: Whether it trains with the channels last in memory: on a CPU a step then takes 1/1.3 to 1/1.6
            of the time (docs/experiments.md). Others gain nothing or were not held to float64; with some torch 2.13
            has crashed.
    """

    name: str
    source: str
    id: str
    family: str
    parameters_m: float
    input_size: int = 224
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    interpolation: str = "bicubic"
    license: str = "apache-2.0"
    code_license: str = "apache-2.0"
    crop: float = 0.875
    reparameterize: bool = False
    int8: bool = False
    fixed_size: bool = False
    least_size: int = 32
    channels_last: bool = False

    @property
    def license_is_free(self) -> bool:
        """Whether the weights may be used by anyone for anything; a card warns where not."""
        return self.license in FREE_LICENSES

    def require_side(self, pixels: int) -> None:
        """Refuse images that are too small for the network.

        Raises:
            ConfigError: A side has fewer pixels than `least_size`.
        """
        if pixels < self.least_size:
            msg = f"{self.name} needs at least {self.least_size} pixels a side: found {pixels}."
            raise ConfigError(msg, "Choose a larger size, or another network.")
