"""Models and images to attack."""

from __future__ import annotations

import torch
from torch import nn

from trainables import models
from trainables.data import registry
from trainables.data.fit import Fit
from trainables.evaluate import classifier_of
from trainables.pixels import to_pixels

SHAPE = (3, 6, 6)


class Linear(nn.Module):
    """Logits linear in the pixels, so that the strongest attack is known."""

    def __init__(self, classes=2, seed=0):
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.weight = nn.Parameter(torch.randn(classes, *SHAPE, generator=generator))

    def forward(self, pixels):
        return torch.einsum("bchw,kchw->bk", pixels, self.weight)


class Curved(Linear):
    """As Linear, behind a non-linearity, batch normalisation and dropout: it has modes and buffers."""

    def __init__(self):
        super().__init__(classes=5)
        self.normalise = nn.BatchNorm2d(3)
        self.drop = nn.Dropout(0.5)

    def forward(self, pixels):
        return super().forward(self.drop(self.normalise(pixels)).sin())


class Bent(nn.Module):
    """A small random network over five classes, all of which it predicts."""

    def __init__(self):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.inner = nn.Parameter(torch.randn(3 * 6 * 6, 24, generator=generator))
        self.outer = nn.Parameter(torch.randn(24, 5, generator=generator))

    def forward(self, pixels):
        return ((pixels - 0.5).flatten(1) @ self.inner).mul(1.5).tanh() @ self.outer


class Negative(Linear):
    """All logits far below zero."""

    def forward(self, pixels):
        return super().forward(pixels) / 10 - 50


class Through(nn.Module):
    """A model behind a function of the pixels, before a function of the logits."""

    def __init__(self, model, before=lambda pixels: pixels, after=lambda logits: logits):
        super().__init__()
        self.model, self.before, self.after = model, before, after

    def forward(self, pixels):
        return self.after(self.model(self.before(pixels)))


def batch(count=4, low=0.3, high=0.7, seed=1, classes=2):
    generator = torch.Generator().manual_seed(seed)
    images = low + (high - low) * torch.rand(count, *SHAPE, generator=generator)
    return images, torch.randint(0, classes, (count,), generator=generator)


def state_of(model):
    return (
        [module.training for module in model.modules()],
        [parameter.requires_grad for parameter in model.parameters()],
        [buffer.clone() for buffer in model.buffers()],
    )


def mixed_model():
    model = Curved().train()
    model.drop.eval()
    model.normalise.weight.requires_grad_(False)
    return model


def same(before, after):
    return before[:2] == after[:2] and all(map(torch.equal, before[2], after[2]))


def fashion(count=100):
    """clip-tiny over Fashion-MNIST in train mode, and images it was not trained on with their labels."""
    images = registry.load("fashion-mnist-8k", "validation", Fit((28, 28))).sample(count)
    model = models.trainable_copy(models.load("clip-tiny", None, "cpu"), text=False)
    classifier = classifier_of(model, images)
    pixels = to_pixels(images.pixels(), torch.device("cpu"))
    return classifier.train(), pixels, torch.from_numpy(images.labels)


def predictions(model, images):
    with torch.no_grad():
        return model(images).argmax(1)


def accuracy(model, images, labels):
    return (predictions(model, images) == labels).float().mean().item()
