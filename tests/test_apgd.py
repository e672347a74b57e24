"""APGD, its losses and the standard worst case: closed forms on linear models, any number of classes."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch

from tests.victims import (
    SHAPE,
    Bent,
    Curved,
    Linear,
    Through,
    accuracy,
    batch,
    fashion,
    predictions,
    same,
    state_of,
)
from trainables.attacks.apgd import apgd, checkpoints, drop_times
from trainables.attacks.losses import dlr, likely_targets, margin, targeted_dlr, targeted_margin
from trainables.attacks.norms import lengths
from trainables.attacks.pgd import attacked, pgd, uniform_start_per_image
from trainables.attacks.standard import standard
from trainables.methods.base import cross_entropy

NORMS = ("linf", "l2")
EPSILON = {"linf": 0.005, "l2": 0.05}


def run(model, images, labels, *, norm="linf", epsilon=None, **options):
    epsilon = EPSILON[norm] if epsilon is None else epsilon
    start = uniform_start_per_image(images, epsilon, 0, range(len(images)), norm=norm)
    return apgd(model, images, labels, start=start, epsilon=epsilon, norm=norm, **options)


@pytest.fixture(scope="module")
def bent():
    """It gets all its images right as they are, and about half of them under attack."""
    model = Bent().requires_grad_(False)
    images, _ = batch(24)
    return model, images, predictions(model, images)


def assert_equally_strong(model, points, others, labels):
    """Not equal pixels: batches of other sizes round otherwise, and a sign can turn on a rounding."""
    reached, expected = (cross_entropy(model(p), labels) for p in (points, others))
    torch.testing.assert_close(reached, expected, rtol=1e-2, atol=1e-4)


# Losses


def test_losses_by_hand():
    logits = torch.tensor([[5.0, 3.0, 2.0, 1.0], [0.0, 4.0, 2.0, 1.0]])
    labels, targets = torch.tensor([0, 2]), torch.tensor([3, 1])
    assert margin(logits, labels).tolist() == [-2, 2]
    assert targeted_margin(logits, labels, targets).tolist() == [-4, 2]
    torch.testing.assert_close(dlr(logits, labels), torch.tensor([-2 / 3, 2 / 3]))
    torch.testing.assert_close(targeted_dlr(logits, labels, targets), torch.tensor([-4 / 3.5, 2 / 3.5]))
    assert likely_targets(logits, labels, 9).tolist() == [[1, 2, 3], [1, 3, 0]]
    assert likely_targets(logits, labels, 1).tolist() == [[1], [1]]


@pytest.mark.parametrize("classes", [2, 3, 4, 10])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_losses_take_any_number_of_classes_and_any_precision(classes, dtype):
    logits = torch.randn(50, classes, generator=torch.Generator().manual_seed(0)).to(dtype)
    labels = torch.arange(50) % classes
    targets = likely_targets(logits, labels, 9)
    assert targets.shape == (50, min(9, classes - 1))
    assert (targets != labels[:, None]).all()
    wrong = logits.float().argmax(1) != labels
    for loss in (margin, dlr):
        assert loss(logits, labels).dtype == torch.float32
        assert torch.equal(loss(logits, labels) > 0, wrong)
    for loss in (targeted_margin, targeted_dlr):
        values = torch.stack([loss(logits, labels, column) for column in targets.T])
        assert values.dtype == torch.float32
        assert torch.equal((values > 0).any(0), wrong)


def test_dlr_does_not_depend_on_scale_and_shift():
    logits = torch.randn(20, 5, generator=torch.Generator().manual_seed(0))
    labels, targets = torch.arange(20) % 5, (torch.arange(20) + 1) % 5
    torch.testing.assert_close(dlr(100 * logits + 7, labels), dlr(logits, labels), atol=1e-4, rtol=1e-4)
    scaled = targeted_dlr(100 * logits + 7, labels, targets)
    torch.testing.assert_close(scaled, targeted_dlr(logits, labels, targets), atol=1e-4, rtol=1e-4)


def test_one_class_is_one_line():
    with pytest.raises(ValueError, match="at least two classes, not 1"):
        standard(Linear(1), batch()[0], torch.zeros(4, dtype=torch.long), epsilon=0.1)


# APGD


def test_checkpoints_are_those_of_the_paper():
    """Section 3.1 with p_1 = 0.22, periods 0.03 shorter each time and 0.06 at least."""
    assert [at for at, _ in checkpoints(100)] == [22, 41, 57, 70, 80, 87, 93, 99]
    assert [window for _, window in checkpoints(100)] == [22, 19, 16, 13, 10, 7, 6, 6]
    for steps in (0, 1, 2, 3, 7, 10, 37):
        found = list(checkpoints(steps))
        assert all(0 < at < steps and window > 0 for at, window in found)
        assert sum(window for _, window in found) == (found[-1][0] if found else 0)


def test_drop_times_are_dense_at_first_and_few():
    times = list(drop_times(100))
    assert times[:5] == [0, 1, 2, 3, 4]
    assert len(times) < 20


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("loss", [cross_entropy, margin, dlr])
def test_a_linear_model_is_attacked_to_the_closed_form_optimum(norm, loss):
    model = Linear()
    images, labels = batch(8)
    against = model.weight.detach()[1 - labels] - model.weight.detach()[labels]
    unit = against.sign() if norm == "linf" else against / against.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
    points, _ = run(model, images, labels, norm=norm, loss=loss, steps=60)
    optimum = images + EPSILON[norm] * unit
    torch.testing.assert_close(points, optimum, atol=1e-6 if norm == "linf" else 2e-2, rtol=0)
    gained = (margin(model(points), labels) - margin(model(images), labels)).detach()
    best = (margin(model(optimum), labels) - margin(model(images), labels)).detach()
    torch.testing.assert_close(gained, best, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("drop", [False, True])
def test_the_points_are_allowed_and_show_what_is_claimed(bent, norm, drop):
    model, images, labels = bent
    points, robust = run(model, images, labels, norm=norm, drop=drop, steps=20)
    assert lengths(points - images, norm).max() <= EPSILON[norm] * (1 + 1e-5) + 1e-6
    assert points.min() >= 0
    assert points.max() <= 1
    assert not points.requires_grad
    assert torch.equal(predictions(model, points) == labels, robust)
    assert 0 < robust.sum() < len(robust)
    assert (points != images).flatten(1).any(1).all()  # also where nothing was found


@pytest.mark.parametrize("norm", NORMS)
def test_without_success_the_point_of_highest_loss_is_returned(norm):
    """What calibration under attack needs, and what the clean image would falsify."""
    model = Linear()
    images = torch.full((6, *SHAPE), 0.5)
    labels = predictions(model, images)
    start = uniform_start_per_image(images, 1e-3, 0, range(6), norm=norm)
    for drop in (False, True):
        points, robust = apgd(
            model, images, labels, start=start, epsilon=1e-3, norm=norm, steps=20, drop=drop
        )
        assert robust.all()
        assert (cross_entropy(model(points), labels) > cross_entropy(model(images), labels)).all()
        assert (cross_entropy(model(points), labels) > cross_entropy(model(images + start), labels)).all()


def test_it_beats_pgd_at_equal_steps(bent):
    model, images, labels = bent
    start = uniform_start_per_image(images, 0.005, 0, range(len(images)))

    def loss(pixels):
        return cross_entropy(model(pixels), labels)

    options = {"start": start, "epsilon": 0.005, "steps": 40}
    fixed = pgd(loss, images, step_size=0.005 / 4, keep_best=True, **options)
    adaptive, _ = apgd(model, images, labels, **options)
    assert loss(adaptive).mean() >= loss(fixed).mean() - 1e-4


@pytest.mark.parametrize("norm", NORMS)
def test_more_steps_are_stronger(bent, norm):
    model, images, labels = bent
    found = [run(model, images, labels, norm=norm, steps=steps) for steps in (0, 2, 50)]
    reached = [float(cross_entropy(model(points), labels).mean()) for points, _ in found]
    assert reached[0] < reached[1] < reached[2]
    broken = [int((~robust).sum()) for _, robust in found]
    assert broken[0] < broken[1] <= broken[2]


@pytest.mark.parametrize("norm", NORMS)
def test_dropping_changes_nobody_elses_result(bent, norm):
    """Targets and labels differ from image to image, so they must follow it when others leave."""
    model, images, labels = bent
    targets = likely_targets(model(images), labels, 9)[:, 1]
    options = {"norm": norm, "loss": targeted_dlr, "targets": targets, "steps": 30}
    kept, robust = run(model, images, labels, **options)
    dropped, robust_with = run(model, images, labels, drop=True, **options)
    assert torch.equal(robust, robust_with)
    assert 0 < robust.sum() < len(robust)
    assert_equally_strong(model, dropped[robust], kept[robust], labels[robust])


# The standard worst case


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("classes", [2, 3, 4, 10])
def test_exactly_the_images_within_reach_of_another_class_are_broken(norm, classes):
    """Linear logits: class c is within reach if the margin to it is below epsilon times the dual norm
    of the weights' difference. Away from the box's walls, for every class and image."""
    model = Linear(classes)
    images = batch(40, low=0.4, high=0.6)[0]
    labels = predictions(model, images)
    logits, weight = model(images).detach(), model.weight.detach().flatten(1)
    apart = torch.stack([weight[label] - weight for label in labels])  # (N, K, D)
    dual = apart.abs().sum(-1) if norm == "linf" else apart.norm(dim=-1)
    needed = (logits.gather(1, labels[:, None]) - logits) / dual  # nan at the label itself
    radius = needed.nan_to_num(torch.inf).amin(1)
    epsilon = float(radius.median()) * 1.01
    clear = (radius / epsilon - 1).abs() > 5e-3
    outcome = standard(model, images, labels, epsilon=epsilon, norm=norm, steps=60)
    assert torch.equal(outcome.robust[clear], (radius > epsilon)[clear])
    assert 0.3 < outcome.robust_accuracy < 0.7


def test_what_is_misclassified_as_it_is_counts_as_broken(bent):
    model, images, labels = bent
    wrong = (labels + 1) % 5
    outcome = standard(model, images, wrong, epsilon=0.01)
    assert not outcome.robust.any()
    assert torch.equal(outcome.adversarial, images)
    assert outcome.image_passes == len(images)


def test_without_a_radius_the_clean_image_decides(bent):
    model, images, labels = bent
    outcome = standard(model, images, labels.clamp(max=2), epsilon=0)
    assert torch.equal(outcome.robust, labels <= 2)
    assert torch.equal(outcome.adversarial, images)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_logits_of_other_precisions_will_do(bent, dtype):
    model, images, labels = bent
    other = Through(model, after=lambda logits: logits.to(dtype))
    correct = predictions(other, images) == labels  # bfloat16 rounds some logits to a tie
    expected = standard(model, images, labels, epsilon=0.005, steps=20).robust
    outcome = standard(other, images, labels, epsilon=0.005, steps=20)
    assert not outcome.robust[~correct].any()
    assert (outcome.robust != expected).sum() <= 2


@pytest.mark.parametrize("norm", NORMS)
def test_robust_images_are_the_same_with_and_without_dropping_in_any_batches(bent, norm):
    model, images, labels = bent
    options = {"epsilon": EPSILON[norm], "norm": norm, "steps": 25, "seed": 3}
    reference = standard(model, images, labels, **options)
    assert 0 < reference.robust.sum() < len(labels)
    for changes in ({"drop": False}, {"batch_size": 5}, {"batch_size": 7, "drop": False}, {"batch_size": 1}):
        other = standard(model, images, labels, **options, **changes)
        assert torch.equal(other.robust, reference.robust)
        survivors = reference.robust
        assert_equally_strong(
            model, other.adversarial[survivors], reference.adversarial[survivors], labels[survivors]
        )
        assert torch.equal(predictions(model, other.adversarial) == labels, other.robust)


def test_an_image_is_attacked_alike_wherever_it_stands_in_the_set(bent):
    model, images, labels = bent
    whole = standard(model, images, labels, epsilon=0.005, steps=20)
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(1))
    mixed = standard(model, images[order], labels[order], indices=order.numpy(), epsilon=0.005, steps=20)
    assert torch.equal(mixed.robust, whole.robust[order])
    assert_equally_strong(model, mixed.adversarial, whole.adversarial[order], labels[order])


def test_the_same_seed_gives_the_same_images_another_seed_others(bent):
    first, again, other = (standard(*bent, epsilon=0.05, steps=5, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(first.adversarial, again.adversarial)
    assert not torch.equal(first.adversarial, other.adversarial)


def test_restarts_only_help(bent):
    robust = [
        standard(*bent, epsilon=0.05, norm="l2", steps=3, restarts=n, attacks=["apgd-ce"]).robust
        for n in (1, 4)
    ]
    assert not (robust[1] & ~robust[0]).any()
    assert robust[1].sum() < robust[0].sum()


def test_dropping_is_cheaper_and_passes_are_counted(bent):
    model, images, labels = bent
    counted = 0

    def count(pixels):
        nonlocal counted
        counted += len(pixels)
        return model(pixels)

    dropped = standard(count, images, labels, epsilon=0.01, steps=20)
    assert dropped.image_passes == counted
    counted = 0
    kept = standard(count, images, labels, epsilon=0.01, steps=20, drop=False)
    assert kept.image_passes == counted == len(images) * (1 + 5 * 21)  # clean, CE and four targets
    assert dropped.image_passes < kept.image_passes / 3


def test_zero_gradients_are_counted_and_warned_of():
    model = Through(Linear(3), before=lambda pixels: pixels * (torch.arange(6) < 3))  # blind on one side
    images, _ = batch(8)
    with pytest.warns(UserWarning, match=r"APGD-CE \+ APGD-T: 50\.0% of the input gradient is exactly zero"):
        outcome = standard(model, images, predictions(model, images), epsilon=1e-4, steps=5)
    assert outcome.zero_gradients == pytest.approx(0.5)


def test_nothing_is_left_behind():
    model = Curved().train()
    images, labels = batch(6, classes=5)
    before = state_of(model), torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()
    with attacked(model):
        standard(model, images, labels, epsilon=0.05, steps=5)
    assert same(before[0], state_of(model))
    assert torch.equal(torch.get_rng_state(), before[1])
    assert np.array_equal(np.random.get_state()[1], before[2])
    assert random.getstate() == before[3]
    assert all(parameter.grad is None for parameter in model.parameters())


def test_clip_at_larger_epsilon_is_never_more_robust_and_unbounded_not_at_all():
    model, images, labels = fashion(16)
    with attacked(model):
        reached = [
            standard(model, images, labels, epsilon=epsilon, steps=10).robust_accuracy
            for epsilon in (1 / 255, 3 / 255, 6 / 255, 1)
        ]
        clean = accuracy(model, images, labels)
    assert clean >= reached[0] >= reached[1] >= reached[2] >= reached[3]
    assert clean > reached[2]
    assert reached[3] == 0


@pytest.mark.gpu
def test_a_set_in_main_memory_is_attacked_on_the_gpu():
    model = Bent().requires_grad_(False).cuda()
    images, _ = batch(24)
    labels = predictions(model, images.to("cuda")).cpu()

    def half(pixels):
        with torch.autocast("cuda", dtype=torch.bfloat16):
            return model(pixels).bfloat16()

    outcome = standard(half, images, labels, epsilon=0.005, steps=20, device="cuda", batch_size=10)
    assert outcome.adversarial.device == outcome.robust.device == images.device
    assert 0 < outcome.robust.sum() < len(labels)
