"""The names of the data sets. Nothing heavy here: sweep files are checked against this list."""

from __future__ import annotations

from typing import Literal, get_args

EMBEDDED = ("fashion-mnist-8k", "digits")
OUTSIDE = ("inaturalist-ood", "sun-ood", "places-ood", "textures", "imagenet-o", "ninco")
"""Images of none of the classes that are asked for: they are scored, never classified."""
ON_DISK = (
    "tiny-imagenet",
    "imagenet1k",
    "imagenetv2",
    "imagenetv2-threshold",
    "imagenetv2-top-images",
    "imagenet-a",
    "imagenet-r",
    "imagenet_sketch",
    "objectnet",
    "imagenet-vid-robust",
    "cifar10",
    "cifar100",
    "stl10",
    "sun397",
    "food101",
    "pets",
    "flowers",
    "dtd",
    "eurosat",
    "fgvc_aircraft",
    "caltech101",
    "caltech256",
    "cars",
    "pcam",
    *OUTSIDE,
)
NAMES = (*EMBEDDED, *ON_DISK)

TEST_IMAGES_ALONE = (
    "imagenetv2",
    "imagenetv2-threshold",
    "imagenetv2-top-images",
    "imagenet-a",
    "imagenet-r",
    "imagenet_sketch",
    "objectnet",
    "imagenet-vid-robust",
    *OUTSIDE,
)
ZERO_SHOT = tuple(name for name in ON_DISK if name not in TEST_IMAGES_ALONE)
"""The sixteen sets on which publications since TeCoA measure zero-shot robustness, as far as they agree."""

SAME_TEST_IMAGES = ("cifar10", "cifar100", "cars", "dtd", "flowers", "food101", "pcam", "pets")
ALIASES: dict[str, str] = {
    "imagenet1k-unverified": "imagenet1k",
    "imagenetv2-matched-frequency": "imagenetv2",
    "imagenetv2-threshold0.7": "imagenetv2-threshold",
    **{f"vtab/{name}": name for name in SAME_TEST_IMAGES},
}
"""Other names by which clip_benchmark or its publishers know a set. VTAB cuts test splits of its own from the
others. No name of ours has a dot, since metrics are called `<set>.<metric>`."""

Factor = Literal[
    "pose",
    "background",
    "pattern",
    "color",
    "smaller",
    "shape",
    "partial_view",
    "subcategory",
    "texture",
    "larger",
]
FACTORS: tuple[str, ...] = get_args(Factor)
"""The commonest ten of ImageNet-X's sixteen; each of the others is the top factor of 125 images or fewer."""
