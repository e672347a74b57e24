"""What all attacks share, and PGD, against closed forms."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.victims import SHAPE, Curved, Linear, batch, mixed_model, same, state_of
from trainables.attacks.monitor import Monitor
from trainables.attacks.norms import into_ball, lengths, steepest
from trainables.attacks.pgd import attacked, pgd, uniform_start, uniform_start_per_image
from trainables.methods.base import cross_entropy

NORMS = ("linf", "l2")


def attack(model, images, labels, start=None, **changes):
    options = {"epsilon": 0.1, "step_size": 0.03, "steps": 10} | changes
    if start is None:
        norm = options.get("norm", "linf")
        start = uniform_start(images, options["epsilon"], torch.Generator().manual_seed(0), norm)
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


def test_a_linear_model_is_attacked_to_the_closed_form_optimum_in_l2():
    """Along the weights' difference, to the surface of the ball; away from the box's walls."""
    model = Linear()
    images, labels = batch()
    against = model.weight.detach()[1 - labels] - model.weight.detach()[labels]
    optimum = images + 0.5 * against / against.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
    result = attack(model, images, labels, steps=40, epsilon=0.5, step_size=0.1, norm="l2", keep_best=True)
    torch.testing.assert_close(result, optimum, atol=1e-3, rtol=0)


@given(
    options=st.fixed_dictionaries(
        {
            "norm": st.sampled_from(NORMS),
            "epsilon": st.floats(1e-3, 1),
            "steps": st.integers(0, 4),
            "step_size": st.floats(1e-3, 2),
            "keep_best": st.booleans(),
        }
    ),
    seed=st.integers(0, 99),
)
@settings(max_examples=40)
def test_the_result_stays_in_the_ball_and_in_the_pixel_range(options, seed):
    images, labels = batch(low=0.0, high=1.0, seed=seed)
    result = attack(Linear(seed=seed), images, labels, **options)
    change = lengths(result - images, options["norm"])
    assert change.max() <= options["epsilon"] * (1 + 1e-5) + 1e-6
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


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_momentum_is_that_of_fares_released_attack(norm):
    """Step by step: gradient and velocity are both brought to length one, the velocity is kept so."""
    model = Curved().eval()
    images, labels = batch(3, classes=5)
    options = {"epsilon": 0.2, "step_size": 0.02, "norm": norm, "steps": 4}
    start = torch.zeros_like(images)

    def unit(g):
        return g.sign() if norm == "linf" else g / g.flatten(1).norm(dim=1).view(-1, 1, 1, 1)

    perturbation, velocity = torch.zeros_like(images), torch.zeros_like(images)
    for _ in range(4):  # the ball is not left within so few steps
        pixels = (images + perturbation).requires_grad_(True)
        (gradient,) = torch.autograd.grad(cross_entropy(model(pixels), labels).sum(), pixels)
        velocity = unit(0.9 * velocity + unit(gradient))
        perturbation = (images + perturbation + 0.02 * velocity).clamp(0, 1) - images
    result = attack(model, images, labels, start, momentum=0.9, **options)
    torch.testing.assert_close(result, images + perturbation, atol=1e-5, rtol=0)
    plain = attack(model, images, labels, start, **options)
    assert torch.allclose(result, plain, atol=1e-6) == (norm == "linf")  # where it changes nothing


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


def test_l_infinity_starts_are_what_they_always_were():
    """Records of earlier evaluations can be made again: numpy's generator of (seed, index)."""
    start = uniform_start_per_image(torch.zeros(1, *SHAPE), 0.1, seed=7, indices=[3])
    expected = np.random.default_rng((7, 3)).uniform(-0.1, 0.1, SHAPE).astype(np.float32)
    assert np.array_equal(start[0].numpy(), expected)


def test_streams_are_independent_draws():
    """Also the stream of zeros, which numpy's seeds could mistake for none."""
    images = torch.zeros(1, *SHAPE)
    streams = ((), (0,), (0, 0), (1, 0), (0, 1))
    starts = [uniform_start_per_image(images, 0.1, 0, [0], stream=stream) for stream in streams]
    assert len({start.numpy().tobytes() for start in starts}) == len(streams)


def test_starts_are_uniform_in_the_ball():
    images = torch.zeros(200, *SHAPE)
    generator = torch.Generator().manual_seed(0)
    for start in (uniform_start(images, 0.2, generator), uniform_start_per_image(images, 0.2, 0, range(200))):
        assert start.abs().max() <= np.float32(0.2)
        assert start.mean().abs() < 4 * 0.2 / np.sqrt(3 * start.numel())
        assert start.std().item() == pytest.approx(0.2 / np.sqrt(3), rel=0.02)


def test_l2_starts_are_uniform_in_the_ball():
    """The share of a ball's volume within r of its centre is (r / epsilon) ** d, in every direction."""
    images = torch.zeros(4000, 3, 1, 1)
    generator = torch.Generator().manual_seed(0)
    for start in (
        uniform_start(images, 0.2, generator, "l2"),
        uniform_start_per_image(images, 0.2, 0, range(4000), norm="l2"),
    ):
        volume = (lengths(start, "l2") / 0.2) ** 3
        assert volume.max() <= 1 + 1e-5
        quantiles = volume.quantile(torch.linspace(0.1, 0.9, 9))
        torch.testing.assert_close(quantiles, torch.linspace(0.1, 0.9, 9), atol=0.03, rtol=0)
        assert start.mean(0).abs().max() < 0.01


# Steps and projections


@given(seed=st.integers(0, 999), epsilon=st.floats(1e-3, 5), norm=st.sampled_from(NORMS))
@settings(max_examples=60)
def test_into_ball_is_in_the_ball_and_the_box_and_moves_nothing_that_is(seed, epsilon, norm):
    generator = torch.Generator().manual_seed(seed)
    images = torch.rand(5, *SHAPE, generator=generator).mul(1.4).sub(0.2).clamp(0, 1)  # many at the walls
    points = images + torch.randn(5, *SHAPE, generator=generator)
    inside = into_ball(points, images, epsilon, norm)
    assert lengths(inside - images, norm).max() <= epsilon * (1 + 1e-5) + 1e-6
    assert inside.min() >= 0
    assert inside.max() <= 1
    torch.testing.assert_close(into_ball(inside, images, epsilon, norm), inside, atol=1e-6, rtol=0)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("size", [1.0, 1e-30, 2.0**-149, 3e38])
def test_a_step_has_length_one_however_small_or_large_the_gradient(norm, size):
    generator = torch.Generator().manual_seed(0)
    gradient = torch.randint(-1, 2, (4, *SHAPE), generator=generator).float() * size
    step = steepest(gradient, norm)
    torch.testing.assert_close(lengths(step, norm), torch.ones(4))
    assert torch.equal(step.sign(), gradient.sign())


@pytest.mark.parametrize("norm", NORMS)
def test_without_a_gradient_there_is_no_step(norm):
    """Zero, or not a number: an image stays where it is, and the others are attacked."""
    images = torch.full((3, *SHAPE), 0.5)
    factor = torch.tensor([0.0, torch.nan, 1.0]).view(3, 1)
    monitor = Monitor()
    result = pgd(
        lambda pixels: (pixels.flatten(1) * factor).sum(1),
        images,
        start=torch.zeros_like(images),
        epsilon=0.1,
        step_size=0.1,
        steps=2,
        norm=norm,
        monitor=monitor,
    )
    assert torch.equal(result[:2], images[:2])
    assert (result[2] > images[2]).all()
    assert monitor.zero_gradients == pytest.approx(2 / 3)
    assert monitor.image_passes == 6


def test_many_zero_gradients_warn_in_one_line():
    monitor = Monitor()
    monitor.warn("PGD")
    monitor.add_gradient(torch.ones(99))
    monitor.add_gradient(torch.tensor([1e-45, 0.0]))
    monitor.warn("PGD")  # 1 of 101: fewer than 1 %
    monitor.add_gradient(torch.zeros(3))
    with pytest.warns(UserWarning, match=r"^PGD: 3\.8% of the input gradient is exactly zero.*Square$"):
        monitor.warn("PGD")
