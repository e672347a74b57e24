"""The attack on confidence keeps every predicted class, and moves the confidence."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.victims import Curved, Linear, Through, batch, fashion, predictions
from trainables.attacks.confidence import confidence_attack
from trainables.attacks.monitor import Monitor
from trainables.attacks.norms import lengths
from trainables.attacks.pgd import attacked

NORMS = ("linf", "l2")
EPSILON = {"linf": 0.05, "l2": 0.5}


def confidence(model, images):
    with torch.no_grad():
        return model(images).float().softmax(1).amax(1)


@given(
    direction=st.sampled_from(["up", "down"]),
    norm=st.sampled_from(NORMS),
    epsilon=st.floats(1e-3, 1),
    classes=st.sampled_from([2, 3, 10]),
    seed=st.integers(0, 99),
)
@settings(max_examples=40)
def test_the_class_stays_and_the_image_stays_in_the_ball(direction, norm, epsilon, classes, seed):
    model = Linear(classes, seed).requires_grad_(False)
    images, _ = batch(low=0.0, high=1.0, seed=seed)
    points = confidence_attack(model, images, direction=direction, epsilon=epsilon, norm=norm, steps=8)
    assert torch.equal(predictions(model, points), predictions(model, images))
    assert lengths(points - images, norm).max() <= epsilon * (1 + 1e-5) + 1e-6
    assert points.min() >= 0
    assert points.max() <= 1
    moved = confidence(model, points) - confidence(model, images)
    assert (moved >= -1e-6).all() if direction == "up" else (moved <= 1e-6).all()


@pytest.mark.parametrize("norm", NORMS)
def test_up_is_the_closed_form_optimum_of_two_linear_classes(norm):
    model = Linear().requires_grad_(False)
    images, _ = batch(8)
    classes = predictions(model, images)
    along = model.weight[classes] - model.weight[1 - classes]
    unit = along.sign() if norm == "linf" else along / along.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
    points = confidence_attack(model, images, direction="up", epsilon=EPSILON[norm], norm=norm)
    torch.testing.assert_close(points, images + EPSILON[norm] * unit, atol=2e-3, rtol=0)


@pytest.mark.parametrize("norm", NORMS)
def test_down_ends_at_the_boundary_where_that_is_within_reach(norm):
    """Two classes: the lowest confidence that keeps the class is one half."""
    model = Linear().requires_grad_(False)
    images, _ = batch(8)
    epsilon = 10 * EPSILON[norm]
    points = confidence_attack(model, images, direction="down", epsilon=epsilon, norm=norm)
    reached = confidence(model, points)
    assert (reached > 0.5).all()
    assert (reached < 0.51).all()


@pytest.mark.parametrize("direction", ["up", "down"])
def test_an_image_is_attacked_alone_as_in_a_batch_and_twice_alike(direction):
    model = Curved().eval().requires_grad_(False)
    images, _ = batch(6)
    options = {"direction": direction, "epsilon": 0.05}
    together = confidence_attack(model, images, **options)
    assert torch.equal(together, confidence_attack(model, images, **options))
    for i in range(6):
        alone = confidence_attack(model, images[i : i + 1], **options)
        torch.testing.assert_close(alone, together[i : i + 1], atol=1e-5, rtol=0)


def test_a_class_that_would_not_survive_a_second_look_is_given_back_clean():
    """A model that answers otherwise when asked last: the clean image stands."""
    linear, asked = Linear(), 0

    def fickle(pixels):
        nonlocal asked
        asked += 1
        return linear(pixels) if asked < 8 else linear(pixels).flip(1)

    images, _ = batch()
    points = confidence_attack(fickle, images, direction="up", epsilon=0.05, steps=5)
    assert asked == 8
    assert torch.equal(points, images)


def test_half_precision_keeps_the_class_too():
    model = Through(Linear(10).requires_grad_(False), after=lambda logits: logits.bfloat16())
    images, _ = batch(30)
    points = confidence_attack(model, images, direction="down", epsilon=0.1)
    assert torch.equal(predictions(model, points), predictions(model, images))
    assert confidence(model, points).mean() < confidence(model, images).mean() - 0.1


@pytest.mark.parametrize("norm", NORMS)
def test_clip_keeps_its_classes_and_loses_its_calibration(norm):
    model, images, _ = fashion(30)
    epsilon = {"linf": 4 / 255, "l2": 0.3}[norm]
    monitor = Monitor()
    with attacked(model):
        clean = confidence(model, images).mean()
        for direction, sign in (("up", 1), ("down", -1)):
            points = confidence_attack(
                model, images, direction=direction, epsilon=epsilon, norm=norm, steps=10, monitor=monitor
            )
            assert torch.equal(predictions(model, points), predictions(model, images))
            assert sign * (confidence(model, points).mean() - clean) > 0.04
    assert monitor.image_passes == 2 * 13 * len(images)


def test_without_a_radius_the_images_come_back():
    images, _ = batch()
    assert confidence_attack(Linear(), images, direction="up", epsilon=0) is images
