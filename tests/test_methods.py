"""The losses against the papers' formulas, written again in mpmath and float64 numpy."""

from __future__ import annotations

import math

import mpmath as mp
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from trainables.methods import METHODS
from trainables.methods.base import cross_entropy, kl_divergence
from trainables.methods.carot import CaRot, carot_loss
from trainables.methods.dirichlet import Dirichlet, dirichlet_kl, dirichlet_loss, log_concentration
from trainables.methods.pmg import PMG, pmg_loss
from trainables.methods.tecoa import tecoa_loss

RNG = np.random.default_rng(0)


def softmax(x, axis=-1):
    e = np.exp(x - x.max(axis, keepdims=True))
    return e / e.sum(axis, keepdims=True)


def logits(batch=5, classes=7, scale=8.0):
    return RNG.normal(0, scale, (batch, classes))


def tensor(array):
    return torch.from_numpy(np.asarray(array, dtype=np.float32))


def kl(p, q):
    return (p * np.log(p / q)).sum(-1)


# TeCoA


def test_tecoa_is_the_cross_entropy_of_the_label():
    x, y = logits(), np.array([0, 3, 6, 1, 1])
    parts = tecoa_loss(tensor(x), torch.from_numpy(y))
    assert list(parts) == ["cross_entropy"]
    expected = -np.log(softmax(x)[np.arange(5), y])
    np.testing.assert_allclose(parts["cross_entropy"], expected, rtol=1e-5, atol=1e-6)


@given(arrays(np.float32, (3, 4), elements=st.floats(-80, 80, width=32)))
@settings(max_examples=50)
def test_cross_entropy_is_that_of_torch(x):
    labels = torch.tensor([0, 2, 3])
    expected = torch.nn.functional.cross_entropy(torch.from_numpy(x), labels, reduction="none")
    torch.testing.assert_close(cross_entropy(torch.from_numpy(x), labels), expected, rtol=1e-5, atol=1e-5)


# PMG-AFT


@pytest.mark.parametrize("direction", ["teacher_to_student", "student_to_teacher"])
def test_pmg_is_the_formula(direction):
    x, frozen, clean = logits(), logits(), logits()
    y = np.array([0, 3, 6, 1, 1])
    parts = pmg_loss(
        tensor(x),
        torch.from_numpy(y),
        tensor(frozen),
        tensor(clean),
        alpha=0.7,
        beta=1.3,
        kl_direction=direction,
    )
    p, p0, pc = softmax(x), softmax(frozen), softmax(clean)
    swap = direction == "student_to_teacher"
    expected = {
        "cross_entropy": -np.log(p[np.arange(5), y]),
        "frozen_kl": 0.7 * (kl(p, p0) if swap else kl(p0, p)),
        "clean_kl": 1.3 * (kl(p, pc) if swap else kl(pc, p)),
    }
    assert parts.keys() == expected.keys()
    for name, value in expected.items():
        assert parts[name].shape == (5,)
        np.testing.assert_allclose(parts[name], value, rtol=1e-4, atol=1e-5, err_msg=name)


def test_pmg_sends_gradient_to_the_clean_logits_too():
    x, clean = tensor(logits()).requires_grad_(), tensor(logits()).requires_grad_()
    parts = pmg_loss(x, torch.zeros(5, dtype=torch.long), tensor(logits()), clean, alpha=1, beta=1)
    sum(part.mean() for part in parts.values()).backward()
    assert clean.grad.abs().max() > 0


@given(
    arrays(np.float32, (2, 5), elements=st.floats(-50, 50, width=32)),
    arrays(np.float32, (2, 5), elements=st.floats(-50, 50, width=32)),
)
@settings(max_examples=50)
def test_kl_divergence_is_not_negative_and_zero_for_equal_logits(a, b):
    a, b = torch.from_numpy(a), torch.from_numpy(b)
    assert (kl_divergence(a, b) >= -1e-5).all()
    assert (kl_divergence(a, a + 3) < 1e-5).all()


# CaRot


def carot_parts(seed=0, batch=6, **changes):
    rng = np.random.default_rng(seed)
    arrays_ = {
        "contrast": rng.normal(0, 5, (batch, batch)),
        "teacher_contrast": rng.normal(0, 5, (batch, batch)),
        "visual_projection": rng.normal(0, 1, (8, 4)),
        "text_projection": rng.normal(0, 1, (9, 4)),
    } | changes
    return arrays_, carot_loss(
        **{name: tensor(value) for name, value in arrays_.items()},
        cross_weight=0.05,
        orthogonality_weight=0.2,
        distillation_weight=1.5,
    )


def test_carot_is_the_formula():
    x, parts = carot_parts()
    rows, columns = np.log(softmax(x["contrast"], 1)), np.log(softmax(x["contrast"], 0))
    teacher = x["teacher_contrast"]
    visual, text = x["visual_projection"], x["text_projection"]
    expected = {
        "contrastive": -(np.diag(rows) + np.diag(columns)) / 2,
        "cross": 0.05 * np.sqrt(((visual @ text.T) ** 2).sum()),
        "orthogonality": 0.2 * np.sqrt(((visual.T @ visual - np.eye(4)) ** 2).sum()),
        "distillation": -1.5 * ((softmax(teacher, 1) * rows).sum(1) + (softmax(teacher, 0) * columns).sum(0)),
    }
    assert parts.keys() == expected.keys()
    for name, value in expected.items():
        assert parts[name].shape == np.shape(value), name
        np.testing.assert_allclose(parts[name], value, rtol=1e-4, err_msg=name)


def test_carots_norms_are_one_number_for_the_batch_and_the_rest_one_per_image():
    _, parts = carot_parts(batch=6)
    shapes = {name: tuple(part.shape) for name, part in parts.items()}
    assert shapes == {"contrastive": (6,), "cross": (), "orthogonality": (), "distillation": (6,)}


def test_an_orthonormal_visual_projection_costs_nothing():
    visual, _ = np.linalg.qr(RNG.normal(size=(8, 4)))
    _, parts = carot_parts(visual_projection=visual)
    assert parts["orthogonality"] < 1e-5


def test_carots_average_follows_its_momentum_schedule():
    carot = CaRot(average_every=5)
    updates = {step: carot.averaging(step, 100) for step in range(100)}
    assert [step for step, m in updates.items() if m is not None] == list(range(4, 100, 5))
    assert updates[4] == pytest.approx(0.05 + 4 / 20 * 0.85)
    assert updates[24] == updates[99] == pytest.approx(0.9)


# Dirichlet


def exact_kl(log_a, log_b):
    """The divergence and beta_0 with 150 digits, of these very float32 numbers."""
    with mp.workdps(150):  # 50 would do, were the terms not up to e^250
        a = [mp.exp(mp.mpf(float(v))) for v in log_a]
        b = [mp.exp(mp.mpf(float(v))) for v in log_b]
        a0, b0 = mp.fsum(a), mp.fsum(b)
        value = mp.loggamma(a0) - mp.loggamma(b0)
        value -= mp.fsum(mp.loggamma(x) - mp.loggamma(y) for x, y in zip(a, b, strict=True))
        value += mp.fsum((x - y) * (mp.digamma(x) - mp.digamma(a0)) for x, y in zip(a, b, strict=True))
        return value, b0


def cosine_pair(classes, spread, difference, seed):
    rng = np.random.default_rng(seed)
    clean = rng.normal(0.2, spread, classes).clip(-1, 1)
    return tensor((clean + rng.normal(0, difference, classes)).clip(-1, 1)), tensor(clean)


@pytest.mark.parametrize("kappa", [0.5, 5, 14.29, 50, 100])
@pytest.mark.parametrize("classes", [2, 10, 200])
@pytest.mark.parametrize(("difference", "spread"), [(1e-4, 0.05), (1e-4, 0.3), (1e-2, 0.05), (0.3, 0.3)])
def test_dirichlet_kl_is_exact(kappa, classes, difference, spread):
    attacked, clean = cosine_pair(classes, spread, difference, seed=classes)
    log_a, log_b = log_concentration(attacked, kappa), log_concentration(clean, kappa)
    expected, evidence = exact_kl(log_a, log_b)
    assert dirichlet_kl(log_a, log_b).item() == pytest.approx(float(expected), rel=1e-5)
    per_evidence = dirichlet_kl(log_a, log_b, per_evidence=True).item()
    assert per_evidence == pytest.approx(float(expected / evidence), rel=1e-5)


@pytest.mark.parametrize("shift", [-30.0, -5.0, 5.0, 40.0])
def test_a_pure_change_of_evidence_is_measured_too(shift):
    log_b = log_concentration(tensor([0.1, 0.2, 0.3]), 50)
    expected, _ = exact_kl(log_b + shift, log_b)
    assert dirichlet_kl(log_b + shift, log_b).item() == pytest.approx(float(expected), rel=1e-5)


@given(
    st.floats(0.5, 100),
    arrays(np.float32, 6, elements=st.floats(-1, 1, width=32)),
    arrays(np.float32, 6, elements=st.floats(-1, 1, width=32)),
)
@settings(max_examples=200)
def test_per_evidence_is_finite_not_negative_and_zero_only_for_equals(kappa, a, b):
    log_a, log_b = (
        log_concentration(torch.from_numpy(a), kappa),
        log_concentration(torch.from_numpy(b), kappa),
    )
    value = dirichlet_kl(log_a, log_b, per_evidence=True).item()
    assert math.isfinite(value)
    assert value >= -1e-15
    assert dirichlet_kl(log_b, log_b, per_evidence=True).item() == 0
    if (log_a - log_b).abs().max() > 0.05 and kappa < 15:
        assert value > 0


@pytest.mark.parametrize("size", [1.0, 3.0, 10.0])
@pytest.mark.parametrize("per_evidence", [False, True])
def test_dirichlet_kl_has_the_right_gradient(size, per_evidence):
    generator = torch.Generator().manual_seed(0)
    pair = [
        (torch.rand(3, 5, generator=generator, dtype=torch.float64) * size).requires_grad_() for _ in "ab"
    ]
    scale = 1.0 if per_evidence else math.exp(-size)
    assert torch.autograd.gradcheck(lambda a, b: scale * dirichlet_kl(a, b, per_evidence=per_evidence), pair)


@pytest.mark.parametrize(("kappa", "rise"), [(100, 0.0), (100, 0.4), (100, -0.4), (14.29, 0.3)])
def test_the_gradient_stays_right_at_high_concentration(kappa, rise):
    """Against (a_k - b_k) psi'(a_k) - (a_0 - b_0) psi'(a_0), times a_k / b_0, in mpmath."""
    attacked, clean = cosine_pair(10, 0.05, 0.02, seed=1)
    log_a = log_concentration(attacked + rise, kappa).requires_grad_()
    log_b = log_concentration(clean, kappa)
    dirichlet_kl(log_a, log_b, per_evidence=True).backward()
    with mp.workdps(150):
        a = [mp.exp(mp.mpf(float(v))) for v in log_a.detach()]
        b = [mp.exp(mp.mpf(float(v))) for v in log_b]
        a0, b0 = mp.fsum(a), mp.fsum(b)
        tail = (a0 - b0) * mp.psi(1, a0)
        expected = [float(x * ((x - y) * mp.psi(1, x) - tail) / b0) for x, y in zip(a, b, strict=True)]
    np.testing.assert_allclose(log_a.grad, expected, rtol=1e-4, atol=1e-6 * np.abs(expected).max())


def test_at_high_concentration_it_is_softmax_distillation():
    """KL(Dir(a) || Dir(b)) = b_0 KL(m_b || m_a) + lower orders, m = softmax(kappa cosine)."""
    attacked, clean = cosine_pair(10, 0.2, 0.05, seed=3)
    m_a, m_b = softmax(30 * attacked.double().numpy()), softmax(30 * clean.double().numpy())
    value = dirichlet_kl(log_concentration(attacked, 30), log_concentration(clean, 30), per_evidence=True)
    assert value.item() == pytest.approx(kl(m_b, m_a), rel=1e-4)


def dirichlet_parts(log_a, log_b, **options):
    return dirichlet_loss(
        torch.zeros(log_a.shape), torch.zeros(len(log_a), dtype=torch.long), log_a, log_b, **options
    )


def test_dirichlet_loss_is_the_formula():
    x, y = logits(3, 4), np.array([0, 1, 3])
    attacked, clean = tensor(RNG.uniform(-0.3, 0.5, (3, 4))), tensor(RNG.uniform(-0.3, 0.5, (3, 4)))
    log_a, log_b = log_concentration(attacked, 5), log_concentration(clean, 5)
    parts = dirichlet_loss(
        tensor(x), torch.from_numpy(y), log_a, log_b, weight=0.3, weight_normalisation="none"
    )
    np.testing.assert_allclose(
        parts["cross_entropy"], -np.log(softmax(x)[np.arange(3), y]), rtol=1e-5, atol=1e-6
    )
    expected = [0.3 * float(exact_kl(a, b)[0]) for a, b in zip(log_a, log_b, strict=True)]
    np.testing.assert_allclose(parts["dirichlet_kl"], expected, rtol=1e-6)


def test_direction_swaps_the_arguments():
    log_a, log_b = (log_concentration(tensor(RNG.uniform(0, 0.4, (3, 4))), 5) for _ in "ab")
    reverse = dirichlet_parts(
        log_a, log_b, weight=1.0, weight_normalisation="none", direction="frozen_to_trained"
    )
    expected = [float(exact_kl(b, a)[0]) for a, b in zip(log_a, log_b, strict=True)]
    np.testing.assert_allclose(reverse["dirichlet_kl"], expected, rtol=1e-6)


def test_evidence_normalisation_divides_by_one_number_for_the_batch():
    """So the images' weighting by their own evidence stays."""
    log_a, log_b = (log_concentration(tensor(RNG.uniform(0, 0.4, (4, 6))), 14.29) for _ in "ab")
    plain = dirichlet_parts(log_a, log_b, weight=1.0, weight_normalisation="none")["dirichlet_kl"]
    normalised = dirichlet_parts(log_a, log_b, weight=1.0)["dirichlet_kl"]
    ratio = (plain / normalised).numpy()
    np.testing.assert_allclose(ratio, np.exp(log_b.double().numpy()).sum(-1).mean(), rtol=1e-9)


def test_a_weight_means_the_same_at_every_number_of_classes_once_normalised():
    """K copies of each class multiply the evidence by K and leave the softmax divergence as it is."""
    log_a, log_b = (log_concentration(tensor(RNG.uniform(0, 0.4, (4, 6))), 14.29) for _ in "ab")
    few = dirichlet_parts(log_a, log_b, weight=1.0)["dirichlet_kl"].mean()
    many = dirichlet_parts(log_a.repeat(1, 20), log_b.repeat(1, 20), weight=1.0)["dirichlet_kl"].mean()
    assert many.item() == pytest.approx(few.item(), rel=1e-3)


# All of them


@pytest.mark.parametrize("size", [1e3, 1e4])
def test_large_logits_give_no_nan(size):
    signs = tensor(RNG.choice([-1.0, 1.0], (4, 4)))
    big = (size * signs).requires_grad_()
    labels = torch.arange(4)
    log_a = log_concentration(signs, 100).requires_grad_()
    losses = {
        "tecoa": tecoa_loss(big, labels),
        "pmg": pmg_loss(big, labels, -big.detach(), big.roll(1, 0), alpha=1, beta=1),
        "dirichlet": dirichlet_loss(big, labels, log_a, log_a.detach().flip(1), weight=1),
        "carot": carot_loss(
            big, -big.detach(), torch.eye(3), torch.ones(3, 3),
            cross_weight=1, orthogonality_weight=1, distillation_weight=1,
        ),
    }  # fmt: skip
    for name, parts in losses.items():
        loss = sum(part.mean() for part in parts.values())
        assert torch.isfinite(loss), name
        gradients = torch.autograd.grad(loss, [big, log_a], retain_graph=True, allow_unused=True)
        assert all(torch.isfinite(g).all() for g in gradients if g is not None), name


@pytest.mark.parametrize("name", ["tecoa", "pmg", "carot"])
def test_gradients_are_those_of_finite_differences(name):
    """The losses compute in float32, so along one direction, with a step that float32 resolves."""
    rng = np.random.default_rng(2)
    start, direction = rng.normal(0, 2, (4, 4)), rng.normal(0, 1, (4, 4))
    other, labels = tensor(rng.normal(0, 2, (4, 4))), torch.tensor([0, 1, 2, 2])

    def loss(x):
        parts = {
            "tecoa": lambda: tecoa_loss(x, labels),
            "pmg": lambda: pmg_loss(x, labels, other, other.roll(1, 0), alpha=0.5, beta=2),
            "carot": lambda: carot_loss(
                x, other, x[:, :3], x[:, 1:],
                cross_weight=0.1, orthogonality_weight=0.2, distillation_weight=1.5,
            ),
        }[name]()  # fmt: skip
        return sum(part.double().mean() for part in parts.values())

    x = tensor(start).requires_grad_()
    loss(x).backward()
    step = 1e-2
    slope = (loss(tensor(start + step * direction)) - loss(tensor(start - step * direction))) / (2 * step)
    assert (x.grad.double() * torch.from_numpy(direction)).sum().item() == pytest.approx(
        slope.item(), rel=2e-3
    )


class Recorder:
    """Views that answer with noise and note what they were asked for."""

    labels = torch.tensor([0, 1])

    def __init__(self, asked, path=""):
        self.asked, self.path = asked, path

    def __getattr__(self, name):
        if name in ("frozen", "average", "clean", "adversarial"):
            return Recorder(self.asked, f"{self.path}{name}.")
        self.asked.add(self.path + name)
        square = torch.rand(2, 2, generator=torch.Generator().manual_seed(len(self.path)))
        return (square, square) if name == "projections" else square


@pytest.mark.parametrize(
    ("method", "expected"),
    [
        (METHODS["tecoa"](), {"adversarial.logits"}),
        (PMG(), {"adversarial.logits", "clean.logits", "frozen.adversarial.logits"}),
        (Dirichlet(), {"adversarial.logits", "adversarial.cosines", "frozen.clean.cosines"}),
        (CaRot(), {"adversarial.contrast", "average.clean.contrast", "projections"}),
    ],
)
def test_a_method_asks_for_the_tensors_of_its_paper(method, expected):
    asked = set()
    assert all(torch.isfinite(part).all() for part in method.loss(Recorder(asked)).values())
    assert asked == expected
