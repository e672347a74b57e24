"""The adapter to torchattacks."""

from __future__ import annotations

import random
import sys

import numpy as np
import pytest
import torch

from tests.victims import Linear, Negative, Through, accuracy, batch, fashion, same, state_of
from trainables.attacks.external import WRAPPERS, parameters, torchattack
from trainables.attacks.pgd import attacked, pgd, uniform_start
from trainables.attacks.standard import standard
from trainables.errors import AttackError
from trainables.methods.base import cross_entropy


@pytest.fixture(scope="module")
def victim():
    return fashion()


def generators():
    state = random.getstate(), torch.get_rng_state().tolist(), np.random.get_state()[1].tolist()
    return (*state, torch.cuda.get_rng_state().tolist() if torch.cuda.is_initialized() else None)


def test_our_pgd_agrees_with_that_of_torchattacks(victim):
    pytest.importorskip("torchattacks")
    model, images, labels = victim
    images, labels = images[:50], labels[:50]
    points = pgd(
        lambda pixels: cross_entropy(model(pixels), labels),
        images,
        start=uniform_start(images, 8 / 255, torch.Generator().manual_seed(0)),
        epsilon=8 / 255,
        step_size=2 / 255,
        steps=10,
    )
    ours = accuracy(model, points, labels)
    theirs = torchattack("PGD", model, images, labels, seed=0, eps=8 / 255, alpha=2 / 255, steps=10)
    assert ours == pytest.approx(accuracy(model, theirs, labels), abs=0.05)


def test_our_apgd_is_as_strong_as_that_of_torchattacks(victim):
    pytest.importorskip("torchattacks")
    model, images, labels = victim
    images, labels, options = images[:40], labels[:40], {"eps": 3 / 255, "steps": 10}
    with attacked(model):
        ours = standard(model, images, labels, epsilon=3 / 255, steps=10, attacks=["apgd-ce"])
    theirs = torchattack("APGD", model, images, labels, seed=0, **options)
    with attacked(model):
        assert ours.robust_accuracy == pytest.approx(accuracy(model, theirs, labels), abs=0.05)


EPS = 8 / 255
ATTACKS = [
    ("FGSM", {"eps": EPS}),
    ("FFGSM", {"eps": EPS}),
    ("RFGSM", {"eps": EPS, "steps": 2}),
    ("BIM", {"eps": EPS, "steps": 2}),
    ("PGD", {"eps": EPS, "alpha": 2 / 255, "steps": 3}),
    ("EOTPGD", {"eps": EPS, "steps": 2}),
    ("TPGD", {"eps": EPS, "steps": 2}),
    ("UPGD", {"eps": EPS, "steps": 2}),
    ("PGDL2", {"eps": 1.0, "steps": 2}),
    ("MIFGSM", {"eps": EPS, "steps": 2}),
    ("NIFGSM", {"eps": EPS, "steps": 2}),
    ("DIFGSM", {"eps": EPS, "steps": 2}),
    ("TIFGSM", {"eps": EPS, "steps": 2}),
    ("SINIFGSM", {"eps": EPS, "steps": 2}),
    ("VMIFGSM", {"eps": EPS, "steps": 1}),
    ("Jitter", {"eps": EPS, "steps": 2}),
    ("SPSA", {"eps": EPS, "nb_iter": 1, "nb_sample": 4}),
    ("APGD", {"eps": EPS, "steps": 3}),
    ("APGDT", {"eps": EPS, "steps": 3}),
    ("FAB", {"eps": EPS, "steps": 2}),
    ("Square", {"eps": EPS, "n_queries": 30}),
    ("AutoAttack", {"eps": EPS}),
    ("CW", {"c": 10, "steps": 5}),
    ("DeepFool", {"steps": 3}),
    ("SparseFool", {"steps": 1}),
    ("OnePixel", {"steps": 2, "popsize": 4}),
    ("Pixle", {"restarts": 2, "max_iterations": 2}),
    ("GN", {}),
    ("VANILA", {}),
    ("PGDRS", {"eps": EPS, "steps": 1, "noise_sd": 0.1, "noise_batch_size": 2}),
    ("PGDRSL2", {"eps": 1.0, "steps": 1, "noise_sd": 0.1, "noise_batch_size": 2}),
    ("VNIFGSM", {"eps": EPS, "steps": 1}),
    ("PIFGSM", {"max_epsilon": EPS, "num_iter_set": 2}),
    ("PIFGSMPP", {"max_epsilon": EPS, "num_iter_set": 2}),
    ("EADL1", {"max_iterations": 10, "binary_search_steps": 1}),
    ("EADEN", {"max_iterations": 10, "binary_search_steps": 1}),
    ("JSMA", {"theta": 1.0, "gamma": 0.001}),
]


def test_no_attack_of_torchattacks_is_left_out():
    torchattacks = pytest.importorskip("torchattacks")
    assert {name for name, _ in ATTACKS} == set(torchattacks.__all__) - set(WRAPPERS)


@pytest.mark.parametrize(("name", "options"), ATTACKS, ids=[name for name, _ in ATTACKS])
def test_every_attack_is_repeatable_and_leaves_no_trace(victim, name, options):
    pytest.importorskip("torchattacks")
    model, images, labels = victim
    images, labels = images[:3], labels[:3]
    model.model.clip.visual.eval()
    before = state_of(model), generators()
    first, second = (torchattack(name, model, images, labels, seed=5, **options) for _ in "ab")
    assert same(before[0], state_of(model))
    assert generators() == before[1]
    assert all(parameter.grad is None for parameter in model.parameters())
    assert torch.equal(first, second)
    assert first.shape == images.shape
    assert not first.requires_grad
    assert first.min() >= 0
    assert first.max() <= 1
    if options.get("eps") == EPS:
        assert (first - images).abs().max() <= EPS + 1e-6


@pytest.mark.parametrize("name", ["PGD", "Square", "CW"])
def test_half_precision_logits_will_do(name):
    pytest.importorskip("torchattacks")
    images, labels = batch()
    model = Through(Linear(), after=lambda logits: logits.bfloat16())
    options = {"n_queries": 20} if name == "Square" else {"steps": 5}
    assert torchattack(name, model, images, labels, seed=0, **options).dtype == torch.float32


def test_parameters_are_those_of_the_constructor():
    pytest.importorskip("torchattacks")
    assert parameters("PGD") == ("eps", "alpha", "steps", "random_start")
    assert set(parameters("Square")) >= {"norm", "eps", "n_queries"}
    assert "seed" not in parameters("Square")  # it is an argument of the adapter


def test_an_unknown_setting_is_one_line_with_the_known_ones():
    pytest.importorskip("torchattacks")
    images, labels = batch()
    with pytest.raises(
        ValueError, match=r"PGD has no 'epsilon' \(it has: eps, alpha, steps, random_start\)$"
    ):
        torchattack("PGD", Linear(), images, labels, seed=0, epsilon=0.1)


@pytest.mark.parametrize(
    ("name", "classes", "options"),
    [("APGDT", 3, {}), ("AutoAttack", 3, {}), ("APGD", 2, {"loss": "dlr"}), ("JSMA", 9, {})],
)
def test_too_few_classes_are_one_line(name, classes, options):
    pytest.importorskip("torchattacks")
    images, labels = batch()
    with pytest.raises(
        ValueError, match=rf"{name} needs at least {classes + 1} classes, here are {classes};"
    ):
        torchattack(name, Linear(classes), images, labels, seed=0, **options)


def test_a_setting_that_torchattacks_stumbles_over_is_one_line():
    pytest.importorskip("torchattacks")
    images, labels = batch()
    settings = {"noise_type": "gaussian", "steps": 1}  # it spells it otherwise, and does not look
    with pytest.raises(AttackError, match=r"PGDRS failed with its settings .*UnboundLocalError"):
        torchattack("PGDRS", Linear(), images, labels, seed=0, **settings)


@pytest.mark.parametrize("classes", [2, 3, 4])
def test_few_classes_are_enough_for_most(classes):
    pytest.importorskip("torchattacks")
    images, labels = batch(classes=classes)
    for name, options in (
        ("PGD", {}),
        ("FAB", {"steps": 3}),
        ("Square", {"n_queries": 10}),
        ("CW", {"steps": 3}),
    ):
        torchattack(name, Linear(classes), images, labels, seed=0, **options)


def test_the_adapter_restores_after_an_exception(victim):
    pytest.importorskip("torchattacks")
    model, images, labels = victim
    before = state_of(model), generators()
    with pytest.raises(RuntimeError):
        torchattack("PGD", model, images[:2, :, :, :0], labels[:2], seed=0)
    assert same(before[0], state_of(model))
    assert generators() == before[1]


def test_cw_works_where_all_logits_are_negative():
    """As released it takes 0 for the largest other logit, and does not move (its issue 184)."""
    torchattacks = pytest.importorskip("torchattacks")

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
