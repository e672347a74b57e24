"""The losses against the papers' formulas, written again in mpmath and float64 numpy."""

from __future__ import annotations

import math
from types import SimpleNamespace

import mpmath as mp
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.ndimage import map_coordinates

from trainables.methods import METHODS
from trainables.methods.agft import agft_loss
from trainables.methods.base import cross_entropy, kl_divergence
from trainables.methods.carot import CaRot, carot_loss
from trainables.methods.dirichlet import Dirichlet, dirichlet_kl, dirichlet_loss, log_concentration
from trainables.methods.fare import fare_loss
from trainables.methods.pmg import PMG, pmg_loss
from trainables.methods.tecoa import tecoa_loss
from trainables.methods.tga import attention_map, patch_attention, tga_loss
from trainables.models import cosines

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


def views_of(batch=3, classes=4, dim=6, scale=50.0, seed=0):
    """Views with random tensors, as leaves of the graph."""
    rng = np.random.default_rng(seed)

    def view():
        leaf = {
            "cosines": tensor(rng.uniform(-0.3, 0.5, (batch, classes))),
            "features": tensor(rng.normal(0, 1, (batch, dim))),
            "tokens": tensor(rng.normal(0, 1, (batch, 1 + 4, dim))),
            "contrast": tensor(rng.normal(0, 4, (batch, batch))),
        }
        view = SimpleNamespace(**{name: value.requires_grad_() for name, value in leaf.items()})
        view.logits = scale * view.cosines
        view.label_text = torch.nn.functional.normalize(tensor(rng.normal(0, 1, (batch, dim))), dim=-1)
        view.derived = lambda _, compute: compute(view).detach()
        return view

    def pair():
        return SimpleNamespace(clean=view(), adversarial=view())

    trained = pair()
    projections = tuple(tensor(rng.normal(0, 1, (5, 3))).requires_grad_() for _ in "vt")
    return SimpleNamespace(
        labels=torch.from_numpy(rng.integers(0, classes, batch)),
        clean=trained.clean,
        adversarial=trained.adversarial,
        detached=SimpleNamespace(clean=trained.clean),  # the same numbers; the trainer cuts the graph
        frozen=pair(),
        average=pair(),
        projections=projections,
        patch_grid=(2, 2),
        image_size=(4, 6),
    )


def total(parts):
    return sum(part.double().mean() for part in parts.values())


def test_pmgs_released_code_has_cosines_for_logits_and_sums_its_divergences():
    views = views_of(batch=5)
    parts = PMG(alpha=0.5, beta=2.0, variant="official_code").loss(views)
    x, frozen, clean = (
        view.cosines.detach().double().numpy()
        for view in (views.adversarial, views.frozen.adversarial, views.clean)
    )
    p, p0, pc = softmax(x), softmax(frozen), softmax(clean)
    y = views.labels.numpy()
    expected = -np.log(p[np.arange(5), y]).mean() + 0.5 * kl(p0, p).sum() + 2.0 * kl(pc, p).sum()
    assert total(parts).item() == pytest.approx(expected, rel=1e-5)
    attack = PMG(variant="official_code").attack_loss(views.adversarial, views)
    np.testing.assert_allclose(attack.detach(), -np.log(p[np.arange(5), y]), rtol=1e-5)


# FARE


def test_fare_is_the_formula_and_its_attack_ascends_the_same():
    a, b = RNG.normal(0, 2, (5, 8)), RNG.normal(0, 2, (5, 8))
    parts = fare_loss(tensor(a), tensor(b))
    assert list(parts) == ["embedding"]
    np.testing.assert_allclose(parts["embedding"], ((a - b) ** 2).sum(1), rtol=1e-5)
    views = views_of()
    attack = METHODS["fare"]().attack_loss(views.adversarial, views)
    assert torch.equal(attack, METHODS["fare"]().loss(views)["embedding"])


# AGFT


def test_agft_is_the_formula_and_its_attack_ascends_the_same():
    a, b = RNG.uniform(-0.2, 0.4, (5, 7)), RNG.uniform(-0.2, 0.4, (5, 7))
    parts = agft_loss(tensor(a), tensor(b), scale=150, teacher_ratio=0.3)
    expected = -(softmax(0.3 * 150 * b) * np.log(softmax(150 * a))).sum(1)
    assert list(parts) == ["soft_cross_entropy"]
    np.testing.assert_allclose(parts["soft_cross_entropy"], expected, rtol=1e-5)
    method, views = METHODS["agft"](), views_of()
    assert (method.scale, method.teacher_ratio) == (180, 0.4)
    attack = method.attack_loss(views.adversarial, views)
    assert torch.equal(attack, method.loss(views)["soft_cross_entropy"])


# TGA-ZSR


def test_attention_worked_by_hand():
    """Products 1, 3, 2, 1 with the text, scaled to 0, 1, 1/2, 0; the class token takes no part."""
    text = torch.tensor([[1.0, 0.0]])
    tokens = torch.tensor([[[9.0, 9.0], [1.0, 5.0], [3.0, -2.0], [2.0, 0.0], [1.0, 1.0]]])
    assert patch_attention(tokens, text).tolist() == [[0.0, 1.0, 0.5, 0.0]]


@pytest.mark.parametrize("variant", ["paper", "official_code"])
def test_attention_is_the_formula(variant):
    tokens, text = RNG.normal(0, 1, (3, 10, 5)), RNG.normal(0, 1, (3, 5))
    used = tokens / np.sqrt((tokens**2).sum(1, keepdims=True)) if variant == "official_code" else tokens
    product = np.einsum("bpd,bd->bp", used[:, 1:], text)
    low, high = product.min(1, keepdims=True), product.max(1, keepdims=True)
    attention = patch_attention(tensor(tokens), tensor(text), variant)
    np.testing.assert_allclose(attention, (product - low) / (high - low), atol=1e-5)


def test_the_attention_map_is_the_bilinear_enlargement():
    """Against scipy's linear interpolation at the pixels' centres, the border held."""
    attention = RNG.uniform(0, 1, (2, 6))
    rows, columns = (np.arange(8) + 0.5) * 2 / 8 - 0.5, (np.arange(9) + 0.5) * 3 / 9 - 0.5
    places = np.meshgrid(rows, columns, indexing="ij")
    expected = [map_coordinates(a.reshape(2, 3), places, order=1, mode="nearest").ravel() for a in attention]
    result = attention_map(tensor(attention), (2, 3), (8, 9))
    np.testing.assert_allclose(result, expected, atol=1e-5)


def test_tga_is_the_formula():
    x, y = logits(), np.array([0, 3, 6, 1, 1])
    adversarial, clean, frozen = (RNG.uniform(0, 1, (5, 12)) for _ in "abc")
    parts = tga_loss(
        tensor(x),
        torch.from_numpy(y),
        tensor(adversarial),
        tensor(clean),
        tensor(frozen),
        alpha=0.3,
        beta=0.7,
    )
    expected = {
        "cross_entropy": -np.log(softmax(x)[np.arange(5), y]),
        "attention_refinement": 0.3 * np.sqrt(((adversarial - frozen) ** 2).sum(1)),
        "attention_constraint": 0.7 * np.sqrt(((clean - frozen) ** 2).sum(1)),
    }
    assert parts.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(parts[name], value, rtol=1e-4, atol=1e-5, err_msg=name)


def test_equal_attention_and_an_image_without_contrast_give_no_nan():
    flat = torch.ones(2, 5, 3, requires_grad=True)
    attention = patch_attention(flat, torch.ones(2, 3))
    assert (attention == 0).all()
    parts = tga_loss(torch.zeros(2, 3), torch.tensor([0, 1]), attention, attention, attention.detach())
    total(parts).backward()
    assert torch.isfinite(flat.grad).all()


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


def test_carots_norms_can_be_squared():
    options = {"cross_weight": 1.0, "orthogonality_weight": 1.0, "distillation_weight": 1.0}
    arguments = [tensor(RNG.normal(0, 1, shape)) for shape in ((3, 3), (3, 3), (8, 4), (9, 4))]
    plain, squared = (carot_loss(*arguments, **options, norms=n) for n in ("frobenius", "squared"))
    for name in ("cross", "orthogonality"):
        assert squared[name].item() == pytest.approx(plain[name].item() ** 2, rel=1e-5)
    assert torch.equal(plain["distillation"], squared["distillation"])


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


def exact_gradient(log_a, log_b):
    """d KL / d log a_k = a_k [(a_k - b_k) psi'(a_k) - (a_0 - b_0) psi'(a_0)], over b_0."""
    with mp.workdps(150):
        a = [mp.exp(mp.mpf(float(v))) for v in log_a]
        b = [mp.exp(mp.mpf(float(v))) for v in log_b]
        a0, b0 = mp.fsum(a), mp.fsum(b)
        tail = (a0 - b0) * mp.psi(1, a0)
        return np.array([float(x * ((x - y) * mp.psi(1, x) - tail) / b0) for x, y in zip(a, b, strict=True)])


GRID = [
    (classes, kappa, difference, spread)
    for classes in (2, 10, 200)
    for kappa in (0.5, 2, 5, 14.29, 50, 100)
    for difference, spread in ((1e-4, 0.05), (1e-4, 0.3), (1e-2, 0.05), (0.3, 0.3))
] + [(1000, kappa, difference, 0.1) for kappa in (0.5, 14.29, 100) for difference in (1e-4, 0.1)]


@pytest.mark.parametrize(("classes", "kappa", "difference", "spread"), GRID)
def test_dirichlet_kl_is_exact(classes, kappa, difference, spread):
    attacked, clean = cosine_pair(classes, spread, difference, seed=classes)
    log_a, log_b = log_concentration(attacked, kappa), log_concentration(clean, kappa)
    expected, evidence = exact_kl(log_a, log_b)
    value = dirichlet_kl(log_a, log_b)
    assert value.dtype == torch.float64
    assert value.item() == pytest.approx(float(expected), rel=1e-5)
    per_evidence = dirichlet_kl(log_a, log_b, per_evidence=True).item()
    assert per_evidence == pytest.approx(float(expected / evidence), rel=1e-5)


@pytest.mark.parametrize(("classes", "kappa", "difference", "spread"), GRID[::5])
def test_dirichlet_kls_gradient_is_exact(classes, kappa, difference, spread):
    """With a float64 leaf of the same float32 numbers: a saturated gradient is below float32's least."""
    attacked, clean = cosine_pair(classes, spread, difference, seed=classes)
    log_b = log_concentration(clean, kappa)
    log_a = log_concentration(attacked, kappa).double().requires_grad_()
    dirichlet_kl(log_a, log_b, per_evidence=True).backward()
    expected = exact_gradient(log_a.detach(), log_b)
    np.testing.assert_allclose(log_a.grad, expected, rtol=1e-5, atol=1e-6 * np.abs(expected).max())


def test_there_is_no_jump_where_the_series_takes_over():
    """Around alpha = 16 the value follows its exact slope on both sides and across."""
    log_b = torch.tensor([2.5, 2.9], dtype=torch.float64)
    edge = math.log(16)
    points = [edge - 1e-6, edge - 1e-9, edge, edge + 1e-9, edge + 1e-6]
    values = [dirichlet_kl(torch.tensor([x, 2.0], dtype=torch.float64), log_b).item() for x in points]
    slope = exact_gradient([edge, 2.0], log_b)[0] * log_b.exp().sum().item()
    for x, value in zip(points, values, strict=True):
        assert value - values[2] == pytest.approx(slope * (x - edge), abs=1e-11)


@pytest.mark.parametrize("kappa", [0.5, 14.29, 100])
def test_bf16_autocast_changes_nothing(kappa):
    """Cosines are made in float32 outside autocast, and everything from there on is float64."""
    features = tensor(RNG.normal(0, 1, (3, 16)))
    text = torch.nn.functional.normalize(tensor(RNG.normal(0, 1, (7, 16))), dim=-1)
    clean = tensor(RNG.uniform(-0.3, 0.4, (3, 7)))

    def value():
        log_a = log_concentration(cosines(features, text), kappa)
        return dirichlet_kl(log_a, log_concentration(clean, kappa), per_evidence=True)

    plain = value()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(value(), plain)


def test_the_raw_value_reaches_far_beyond_single_precision():
    log_b = log_concentration(tensor([[0.9, 0.3, -0.2]]), 100)
    log_a = log_concentration(tensor([[0.2, 0.9, 0.1]]), 100)
    value = dirichlet_kl(log_a, log_b)
    assert value.item() == pytest.approx(float(exact_kl(log_a[0], log_b[0])[0]), rel=1e-9)
    assert value > torch.finfo(torch.float32).max
    assert torch.isfinite(value).all()


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
def test_it_is_finite_not_negative_and_zero_for_equals_alone(kappa, a, b):
    log_a, log_b = (
        log_concentration(torch.from_numpy(a), kappa),
        log_concentration(torch.from_numpy(b), kappa),
    )
    per_evidence = dirichlet_kl(log_a, log_b, per_evidence=True).item()
    value = dirichlet_kl(log_a, log_b).item()
    assert math.isfinite(per_evidence)
    assert math.isfinite(value)
    assert dirichlet_kl(log_b, log_b, per_evidence=True).item() == dirichlet_kl(log_b, log_b).item() == 0
    different = (log_a - log_b).abs().max() > 1e-3
    assert value > 0 if different else value >= -1e-9
    assert per_evidence > 0 if different else per_evidence >= -1e-12


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
def test_the_gradient_stays_right_where_evidence_shifts(kappa, rise):
    attacked, clean = cosine_pair(10, 0.05, 0.02, seed=1)
    log_a = log_concentration(attacked + rise, kappa).requires_grad_()
    log_b = log_concentration(clean, kappa)
    dirichlet_kl(log_a, log_b, per_evidence=True).backward()
    expected = exact_gradient(log_a.detach(), log_b)
    np.testing.assert_allclose(log_a.grad, expected, rtol=1e-4, atol=1e-6 * np.abs(expected).max())


@given(
    st.floats(20, 100),
    arrays(np.float32, 6, elements=st.floats(-0.125, 0.25, width=32)),
    arrays(np.float32, 6, elements=st.floats(-0.125, 0.25, width=32)),
)
@settings(max_examples=100)
def test_at_high_concentration_it_is_softmax_distillation(kappa, a, b):
    """KL(Dir(a) || Dir(b)) / b_0 = KL(m_b || m_a) + a rest that b_0 divides, m = softmax(kappa cosine):
    Stirling's formula on every term."""
    log_a, log_b = (log_concentration(torch.from_numpy(c), kappa).double() for c in (a, b))
    rest = 6 * (log_a - log_b).abs().max().exp() / log_b.exp().sum()
    expected = kl(log_b.softmax(-1).numpy(), log_a.softmax(-1).numpy())
    value = dirichlet_kl(log_a, log_b, per_evidence=True).item()
    assert value == pytest.approx(expected, rel=1e-6, abs=rest.item() + 1e-14)
    assert rest < 1e-3


EVIDENCE = {"weight": 1.0, "weight_normalisation": "evidence"}


def test_the_default_is_the_publication():
    method = Dirichlet()
    assert method.concentration_scale == 1 / 0.07
    assert method.applied_weight == pytest.approx(1e5 / math.exp(math.log1p(math.exp(2 / 0.07))), rel=1e-12)
    assert method.applied_weight == pytest.approx(3.905e-8, rel=1e-3)
    assert Dirichlet(weight_normalisation="evidence").applied_weight == 1.0
    assert Dirichlet(weight_normalisation="evidence", weight=0.3).applied_weight == 0.3
    views = views_of()
    parts = method.loss(views)
    kappa = 1 / 0.07
    pairs = zip(views.adversarial.cosines.detach(), views.frozen.clean.cosines.detach(), strict=True)
    divergences = [exact_kl(log_concentration(a, kappa), log_concentration(b, kappa))[0] for a, b in pairs]
    expected = [method.applied_weight * float(value) for value in divergences]
    np.testing.assert_allclose(parts["dirichlet_kl"].detach(), expected, rtol=1e-5)


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


def test_without_evidence_the_shape_of_the_softmax_is_aligned():
    """Whatever all cosines of an image are shifted by, and with the same weight for each image."""
    cosines = [RNG.uniform(0, 0.4, (4, 6)) for _ in "ab"]
    log_a, log_b = (log_concentration(tensor(c), 5) for c in cosines)
    p, q = (softmax(5 * c) for c in reversed(cosines))
    expected = 0.3 * (p * np.log(p / q)).sum(-1)
    for shift in (0, 1):
        parts = dirichlet_parts(log_a + shift, log_b, weight=0.3, evidence=False)
        np.testing.assert_allclose(parts["dirichlet_kl"], expected, rtol=1e-4)
    assert Dirichlet(evidence=False).applied_weight == 1.0
    with pytest.raises(ValueError, match="evidence needs `evidence: true`"):
        Dirichlet(evidence=False, weight_normalisation="evidence")


def test_evidence_normalisation_divides_by_one_number_for_the_batch():
    """So the images' weighting by their own evidence stays."""
    log_a, log_b = (log_concentration(tensor(RNG.uniform(0, 0.4, (4, 6))), 14.29) for _ in "ab")
    plain = dirichlet_parts(log_a, log_b, weight=1.0, weight_normalisation="none")["dirichlet_kl"]
    normalised = dirichlet_parts(log_a, log_b, **EVIDENCE)["dirichlet_kl"]
    ratio = (plain / normalised).numpy()
    np.testing.assert_allclose(ratio, np.exp(log_b.double().numpy()).sum(-1).mean(), rtol=1e-9)


def test_a_weight_means_the_same_at_every_number_of_classes_once_normalised():
    """K copies of each class multiply the evidence by K and leave the softmax divergence as it is."""
    log_a, log_b = (log_concentration(tensor(RNG.uniform(0, 0.4, (4, 6))), 14.29) for _ in "ab")
    few = dirichlet_parts(log_a, log_b, **EVIDENCE)["dirichlet_kl"].mean()
    many = dirichlet_parts(log_a.repeat(1, 20), log_b.repeat(1, 20), **EVIDENCE)["dirichlet_kl"].mean()
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
        "dirichlet": dirichlet_loss(big, labels, log_a, log_a.detach().flip(1), **EVIDENCE),
        "carot": carot_loss(
            big, -big.detach(), torch.eye(3), torch.ones(3, 3),
            cross_weight=1, orthogonality_weight=1, distillation_weight=1,
        ),
        "fare": fare_loss(big, -big.detach()),
        "agft": agft_loss(signs * (big / big.abs().detach()), -signs, scale=size),
        "tga": tga_loss(big, labels, big, -big, big.detach()),
    }  # fmt: skip
    for name, parts in losses.items():
        loss = sum(part.mean() for part in parts.values())
        assert torch.isfinite(loss), name
        gradients = torch.autograd.grad(loss, [big, log_a], retain_graph=True, allow_unused=True)
        assert all(torch.isfinite(g).all() for g in gradients if g is not None), name


@pytest.mark.parametrize("name", ["tecoa", "pmg", "carot", "fare", "agft", "tga", "dirichlet"])
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
            "fare": lambda: fare_loss(x, other),
            "agft": lambda: agft_loss(x, other, scale=2),
            "tga": lambda: tga_loss(x, labels, x, x.roll(1, 0), other),
            "dirichlet": lambda: dirichlet_loss(x, labels, x, other, weight=0.5),
        }[name]()  # fmt: skip
        return total(parts)

    x = tensor(start).requires_grad_()
    loss(x).backward()
    step = 1e-2
    slope = (loss(tensor(start + step * direction)) - loss(tensor(start - step * direction))) / (2 * step)
    assert (x.grad.double() * torch.from_numpy(direction)).sum().item() == pytest.approx(
        slope.item(), rel=2e-3
    )


TOKENS = ("tokens", "label_text")


class Recorder:
    """Views that answer with noise and note what they were asked for."""

    labels = torch.tensor([0, 1])
    patch_grid, image_size = (1, 1), (2, 2)

    def __init__(self, asked, path=""):
        self.asked, self.path = asked, path

    def __getattr__(self, name):
        if name in ("frozen", "average", "detached", "clean", "adversarial"):
            return Recorder(self.asked, f"{self.path}{name}.")
        if name == "derived":
            return lambda _, compute: compute(self)
        self.asked.add(self.path + name)
        square = torch.rand(2, 2, generator=torch.Generator().manual_seed(len(self.path)))
        if name == "tokens":
            return torch.stack([square, square.flip(0)], 1)
        return (square, square) if name == "projections" else square


@pytest.mark.parametrize(
    ("method", "expected"),
    [
        (METHODS["tecoa"](), {"adversarial.logits"}),
        (PMG(), {"adversarial.logits", "detached.clean.logits", "frozen.adversarial.logits"}),
        (
            PMG(variant="official_code"),
            {"adversarial.cosines", "clean.cosines", "frozen.adversarial.cosines"},
        ),
        (METHODS["fare"](), {"adversarial.features", "frozen.clean.features"}),
        (METHODS["agft"](), {"adversarial.cosines", "frozen.clean.cosines"}),
        (
            METHODS["tga"](),
            {"adversarial.logits"}
            | {
                f"{v}.{t}" for v in ("adversarial", "clean", "frozen.clean") for t in ("tokens", "label_text")
            },
        ),
        (Dirichlet(), {"adversarial.logits", "adversarial.cosines", "frozen.clean.cosines"}),
        (CaRot(), {"adversarial.contrast", "average.clean.contrast", "projections"}),
    ],
)
def test_a_method_asks_for_the_tensors_of_its_paper(method, expected):
    asked = set()
    assert all(torch.isfinite(part).all() for part in method.loss(Recorder(asked)).values())
    assert asked == expected
