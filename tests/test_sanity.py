"""The checks acquit honest models and convict those whose gradients are masked."""

from __future__ import annotations

import sys

import pytest
import torch

from tests.victims import Bent, Through, batch, fashion, predictions, same, state_of
from trainables.attacks.sanity import check

NAMES = [
    "repeatable",
    "more iterations",
    "larger epsilon",
    "unbounded",
    "black box not stronger",
    "gradients",
]


def failed(findings):
    return {finding.name for finding in findings if finding.passed is False}


@pytest.fixture(scope="module")
def bent():
    model = Bent()
    images, _ = batch(24)
    return model, images, predictions(model, images)


@pytest.mark.parametrize(("norm", "epsilon"), [("linf", 0.01), ("l2", 0.1)])
def test_an_honest_model_passes(bent, norm, epsilon):
    pytest.importorskip("torchattacks")
    model, images, labels = bent
    model.train()
    before = state_of(model)
    findings = check(model, images, labels, epsilon=epsilon, norm=norm, queries=50)
    assert [finding.name for finding in findings] == NAMES
    assert all(finding.passed for finding in findings), [str(finding) for finding in findings]
    assert all("\n" not in str(finding) for finding in findings)
    assert same(before, state_of(model))


def test_clip_passes():
    pytest.importorskip("torchattacks")
    findings = check(*fashion(16), epsilon=2 / 255, steps=10, queries=30)
    assert all(finding.passed for finding in findings), [str(finding) for finding in findings]


def test_a_staircase_has_no_gradients(bent):
    pytest.importorskip("torchattacks")
    model, images, labels = bent
    stairs = Through(model, before=lambda pixels: (pixels * 60).round() / 60)
    convicted = failed(check(stairs, images, labels, epsilon=0.01))
    assert convicted == {"more iterations", "gradients", "unbounded", "black box not stronger"}


def test_shattered_gradients_are_found_although_none_is_zero(bent):
    """A fast ripple on the pixels: steep everywhere, and it says nothing of the way."""
    pytest.importorskip("torchattacks")
    model, images, labels = bent
    rippled = Through(model, before=lambda pixels: pixels + 0.002 * (pixels * 1e5).sin())
    convicted = failed(check(rippled, images, labels, epsilon=0.01))
    assert "black box not stronger" in convicted
    assert "gradients" not in convicted


@pytest.mark.parametrize("after", [lambda logits: 100 * logits, lambda logits: (4 * logits).half()])
def test_a_saturated_softmax_is_found_by_its_zero_gradients(bent, after):
    """In float32, or sooner in float16, whose smallest number is 6e-8."""
    model, images, labels = bent
    convicted = failed(check(Through(model, after=after), images, labels, epsilon=0.01, queries=10))
    assert {"gradients", "unbounded"} <= convicted


def test_a_model_that_answers_at_random_is_found(bent):
    model, images, labels = bent
    generator = torch.Generator().manual_seed(0)

    def noise(pixels):
        return pixels + 0.03 * torch.randn(pixels.shape, generator=generator)

    findings = check(Through(model, before=noise), images, labels, epsilon=0.01, queries=20)
    assert "repeatable" in failed(findings)


def test_without_torchattacks_the_black_box_is_not_checked(bent, monkeypatch):
    monkeypatch.setitem(sys.modules, "torchattacks", None)
    findings = {f.name: f for f in check(*bent, epsilon=0.01, steps=5)}
    assert findings["black box not stronger"].passed is None
    assert "pip install" in str(findings["black box not stronger"])
