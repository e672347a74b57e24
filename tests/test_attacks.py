"""PGD against closed forms and against torchattacks; the adapter to torchattacks."""

from __future__ import annotations

import itertools
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from trainables import models
from trainables.attacks.external import torchattack
from trainables.attacks.pgd import attacked, pgd, uniform_start, uniform_start_per_image
from trainables.data import registry
from trainables.methods.base import cross_entropy
from trainables.models import cosines
from trainables.training import to_pixels

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


def batch(count=4, low=0.3, high=0.7, seed=1, classes=2):
    generator = torch.Generator().manual_seed(seed)
    images = low + (high - low) * torch.rand(count, *SHAPE, generator=generator)
    return images, torch.randint(0, classes, (count,), generator=generator)


def attack(model, images, labels, start=None, **changes):
    options = {"epsilon": 0.1, "step_size": 0.03, "steps": 10} | changes
    if start is None:
        start = uniform_start(images, options["epsilon"], torch.Generator().manual_seed(0))
    return pgd(lambda pixels: cross_entropy(model(pixels), labels), images, start=start, **options)


def losses(model, images, labels):
    with torch.no_grad():
        return cross_entropy(model(images), labels)


def test_a_linear_model_is_attacked_to_the_closed_form_optimum():
    """The corner of the ball that lies against the weights' difference, cut off at 0 and 1."""
    model = Linear()
    images, labels = batch(low=0.0, high=1.0)
    against = model.weight.detach()[1 - labels] - model.weight.detach()[labels]
    optimum = (images + 0.1 * against.sign()).clamp(0, 1)
    result = attack(model, images, labels, steps=20)
    torch.testing.assert_close(result, optimum, atol=1e-6, rtol=0)


@given(
    epsilon=st.floats(1e-3, 1),
    steps=st.integers(0, 4),
    step_size=st.floats(1e-3, 2),
    keep_best=st.booleans(),
    seed=st.integers(0, 99),
)
@settings(max_examples=40)
def test_the_result_stays_in_the_ball_and_in_the_pixel_range(epsilon, steps, step_size, keep_best, seed):
    images, labels = batch(low=0.0, high=1.0, seed=seed)
    result = attack(
        Linear(seed=seed),
        images,
        labels,
        epsilon=epsilon,
        steps=steps,
        step_size=step_size,
        keep_best=keep_best,
    )
    assert (result - images).abs().max() <= epsilon * (1 + 1e-5) + 1e-6
    assert result.min() >= 0
    assert result.max() <= 1
    assert not result.requires_grad


def test_more_steps_are_not_weaker():
    model = Curved().eval()
    images, labels = batch(16, classes=5)
    at = [
        losses(model, attack(model, images, labels, steps=n, step_size=0.01, keep_best=True), labels)
        for n in (0, 1, 3, 10, 30)
    ]
    for fewer, more in itertools.pairwise(at):
        assert (more >= fewer - 1e-5).all()  # the same trajectory, further, and its best point


def test_the_best_point_is_never_below_the_last():
    model = Curved().eval()
    images, labels = batch(16, classes=5)
    for step_size in (0.01, 0.2):
        last = attack(model, images, labels, step_size=step_size)
        best = attack(model, images, labels, step_size=step_size, keep_best=True)
        assert (losses(model, best, labels) >= losses(model, last, labels)).all()


@pytest.mark.parametrize("keep_best", [False, True])
def test_an_image_is_attacked_alone_as_in_a_batch(keep_best):
    model = Curved().eval()
    images, labels = batch(8, classes=5)
    start = uniform_start(images, 0.1, torch.Generator().manual_seed(3))
    together = attack(model, images, labels, start, keep_best=keep_best)
    for i in range(8):
        one = slice(i, i + 1)
        alone = attack(model, images[one], labels[one], start[one], keep_best=keep_best)
        torch.testing.assert_close(alone, together[one], atol=1e-6, rtol=0)


def test_tiny_gradients_are_not_lost_to_the_batch_size():
    """The loss is summed: with a mean, 2^-149 / 1000 would be zero and the pixels never attacked."""
    images = torch.full((1000, 3, 1, 1), 0.5)
    result = pgd(
        lambda pixels: (pixels.flatten(1) * 2.0**-149).sum(1),
        images,
        start=torch.zeros_like(images),
        epsilon=0.1,
        step_size=0.1,
        steps=1,
    )
    assert (result > 0.59).all()


def test_without_a_radius_the_images_come_back():
    images, labels = batch()
    for keep_best in (False, True):
        start = torch.zeros_like(images)
        assert torch.equal(attack(Linear(), images, labels, start, epsilon=0, keep_best=keep_best), images)


def test_the_global_generator_is_left_alone():
    images, labels = batch(classes=5)
    before = torch.get_rng_state(), np.random.get_state()[1].copy()
    attack(Curved().eval(), images, labels)
    uniform_start_per_image(images, 0.1, 0, range(4))
    assert torch.equal(torch.get_rng_state(), before[0])
    assert np.array_equal(np.random.get_state()[1], before[1])


@pytest.mark.parametrize("keep_best", [False, True])
def test_nothing_stays_attached(keep_best):
    model = Curved().eval()
    images, labels = batch(classes=5)
    result = attack(model, images.requires_grad_(), labels, keep_best=keep_best)
    assert not result.requires_grad
    assert result.grad_fn is None
    assert images.grad is None
    assert all(parameter.grad is None for parameter in model.parameters())


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


def test_attacked_switches_and_restores_modes_and_flags():
    model = mixed_model()
    before = state_of(model)
    with attacked(model):
        assert not any(module.training for module in model.modules())
        assert not any(parameter.requires_grad for parameter in model.parameters())
        images, labels = batch(classes=5)
        attack(model, images, labels)
    assert same(before, state_of(model))


def test_attacked_restores_after_an_exception():
    model = mixed_model()
    before = state_of(model)
    with pytest.raises(KeyError), attacked(model):
        raise KeyError
    assert same(before, state_of(model))


# Starts


def test_a_start_depends_on_seed_and_index_alone():
    images = torch.zeros(10, *SHAPE)
    whole = uniform_start_per_image(images, 0.1, seed=3, indices=range(10))
    parts = [
        uniform_start_per_image(images[:n], 0.1, seed=3, indices=range(f, f + n))
        for f, n in ((0, 4), (4, 1), (5, 5))
    ]
    assert torch.equal(torch.cat(parts), whole)
    assert whole.dtype == torch.float32
    assert len({row.numpy().tobytes() for row in whole}) == 10


@pytest.mark.parametrize("other", [1, 2**32, 2**40])
def test_another_seed_gives_another_start(other):
    images = torch.zeros(2, *SHAPE)
    first, second = (uniform_start_per_image(images, 0.1, seed=s, indices=[0, 1]) for s in (0, other))
    assert not torch.equal(first, second)


def test_starts_are_uniform_in_the_ball():
    images = torch.zeros(200, *SHAPE)
    generator = torch.Generator().manual_seed(0)
    for start in (uniform_start(images, 0.2, generator), uniform_start_per_image(images, 0.2, 0, range(200))):
        assert start.abs().max() <= np.float32(0.2)
        assert start.mean().abs() < 4 * 0.2 / np.sqrt(3 * start.numel())
        assert start.std().item() == pytest.approx(0.2 / np.sqrt(3), rel=0.02)


# torchattacks


class Classifier(nn.Module):
    """clip-tiny over the classes of Fashion-MNIST, as a torchattacks user would wrap it."""

    def __init__(self, classes):
        super().__init__()
        self.model = models.trainable_copy(models.load("clip-tiny", None, "cpu"), text=False)
        self.text = self.model.encode_classes(models.class_prompts("This is a photo of a {}", classes))

    def forward(self, pixels):
        return self.model.scale * cosines(self.model.features(pixels), self.text)


@pytest.fixture(scope="module")
def fashion():
    images = registry.load("fashion-mnist-8k", "validation", (28, 28)).sample(100)
    pixels = to_pixels(images.images, torch.device("cpu"))
    return Classifier(images.classes).train(), pixels, torch.from_numpy(images.labels)


def accuracy(model, images, labels):
    with torch.no_grad():
        return (model(images).argmax(1) == labels).float().mean().item()


def test_our_pgd_agrees_with_that_of_torchattacks(fashion):
    pytest.importorskip("torchattacks")
    model, images, labels = fashion
    options = {"epsilon": 8 / 255, "step_size": 2 / 255, "steps": 10}
    ours = accuracy(model, attack(model, images, labels, **options), labels)
    theirs = torchattack("PGD", model, images, labels, seed=0, eps=8 / 255, alpha=2 / 255, steps=10)
    assert ours == pytest.approx(accuracy(model, theirs, labels), abs=0.05)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("PGD", {"eps": 8 / 255, "alpha": 2 / 255, "steps": 3}),
        ("Square", {"eps": 8 / 255, "n_queries": 30}),
        ("CW", {"c": 10, "steps": 10}),
        ("APGDT", {"eps": 8 / 255, "steps": 3}),
        ("Pixle", {"restarts": 2, "max_iterations": 2}),
    ],
)
def test_the_adapter_is_repeatable_and_leaves_no_trace(fashion, name, options):
    pytest.importorskip("torchattacks")
    model, images, labels = fashion
    model.model.clip.visual.eval()
    before = state_of(model), torch.get_rng_state(), np.random.get_state()[1].copy()
    first, second = (torchattack(name, model, images[:6], labels[:6], seed=5, **options) for _ in "ab")
    assert torch.equal(first, second)
    assert first.shape == images[:6].shape
    assert not first.requires_grad
    assert first.min() >= 0
    assert first.max() <= 1
    if "eps" in options:
        assert (first - images[:6]).abs().max() <= options["eps"] + 1e-6
    assert same(before[0], state_of(model))
    assert torch.equal(torch.get_rng_state(), before[1])
    assert np.array_equal(np.random.get_state()[1], before[2])
    assert all(parameter.grad is None for parameter in model.parameters())


def test_the_adapter_restores_after_an_exception(fashion):
    pytest.importorskip("torchattacks")
    model, images, labels = fashion
    before, generator = state_of(model), torch.get_rng_state()
    with pytest.raises(RuntimeError):
        torchattack("PGD", model, images[:2, :, :, :0], labels[:2], seed=0)
    assert same(before, state_of(model))
    assert torch.equal(torch.get_rng_state(), generator)


def test_cw_works_where_all_logits_are_negative():
    """As released it takes 0 for the largest other logit, and does not move (its issue 184)."""
    torchattacks = pytest.importorskip("torchattacks")

    class Negative(Linear):
        def forward(self, pixels):
            return super().forward(pixels) / 10 - 50

    model = Negative(classes=4)
    images = batch(8)[0]
    labels = model(images).argmax(1)
    options = {"c": 10, "steps": 50, "lr": 0.02}
    released = torchattacks.CW(model, **options)(images, labels)
    ours = torchattack("CW", model, images, labels, seed=0, **options)
    assert accuracy(model, ours, labels) == 0
    assert accuracy(model, released, labels) > 0


def test_an_unknown_attack_names_the_closest():
    pytest.importorskip("torchattacks")
    images, labels = batch()
    with pytest.raises(ValueError, match=r"no attack 'apgd-t'; did you mean .*APGDT"):
        torchattack("apgd-t", Linear(), images, labels, seed=0)


def test_without_torchattacks_the_message_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "torchattacks", None)
    images, labels = batch()
    with pytest.raises(
        ImportError, match=r"optional extra.*pip install --no-deps torchattacks==3\.5\.1"
    ) as e:
        torchattack("PGD", Linear(), images, labels, seed=0)
    assert "\n" not in str(e.value)
