"""The cache of the frozen model's outputs: equal to computing them again, and never another's."""

from __future__ import annotations

import dataclasses
from dataclasses import replace

import pytest
import torch

from trainables import models
from trainables.config import TrialConfig
from trainables.data import registry
from trainables.data.fit import Fit
from trainables.frozen import FrozenKey, StaleCache, frozen_cache
from trainables.methods.tga import patch_attention
from trainables.models import cosines
from trainables.pixels import to_pixels
from trainables.training import Trainer

PROMPT = "This is a photo of a {}"
COUNT = 40


@pytest.fixture(scope="module")
def tiny():
    return models.load("clip-tiny", None, "cpu")


def image_set(name="fashion-mnist-8k"):
    return registry.load(name, "train", Fit((28, 28))).sample(COUNT)


def cache_of(model, images, prompt=PROMPT, transform="none"):
    images = replace(images, templates=(prompt,))
    key = FrozenKey.of(model, images, transform)
    return frozen_cache(key, model, images, model.encode_classes(images.classes, [prompt])), key


def features(cache, key, indices):
    return cache.rows(key, indices, "features", lambda view: view.features)


def recomputed(model, images, indices):
    with torch.no_grad():
        return model.features(to_pixels(images.pixels(indices.numpy()), model.device))


@pytest.mark.parametrize("name", ["fashion-mnist-8k", "digits"])
def test_what_is_served_is_what_recomputing_gives(tiny, name):
    images, indices = image_set(name), torch.tensor([3, 0, 39, 3])
    cache, key = cache_of(tiny, images)
    served = features(cache, key, indices)
    torch.testing.assert_close(served, recomputed(tiny, images, indices), rtol=1e-4, atol=1e-4)
    assert torch.equal(served[0], served[3])
    assert not served.requires_grad


def test_logits_and_attention_of_a_batch_are_those_recomputed():
    """As a loss asks for them, through the trainer's views."""
    config = {"method": {"name": "tga"}, "batch_size": 16, "data": {"images": 64}}
    trainer = Trainer(TrialConfig.model_validate(config), seed=0, device="cpu")
    indices = next(iter(trainer._batches(0)))
    views = trainer._views(indices, torch.Generator().manual_seed(0))
    frozen = views.frozen.clean

    def attention(view):
        return patch_attention(view.tokens, view.label_text)

    served = frozen.logits, frozen.derived("attention of paper", attention)
    pixels = to_pixels(trainer.images.pixels(indices), trainer.device)
    with torch.no_grad():
        features, patches = trainer.pretrained.encode(pixels)
        logits = trainer.pretrained.scale * cosines(features, trainer.frozen_text)
        tokens = torch.cat([features[:, None], trainer.pretrained.patch_features(patches)], 1)
    expected = logits, patch_attention(tokens, trainer.frozen_text[views.labels])
    for one, other in zip(served, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-3)
    assert "_encoded" not in vars(frozen)  # nothing was computed for this batch


def test_the_next_trial_finds_it_and_computes_nothing(tiny):
    cache, key = cache_of(tiny, image_set())
    first = features(cache, key, torch.arange(COUNT))
    again, key = cache_of(tiny, image_set())
    assert again is cache
    unasked = again.rows(key, torch.arange(COUNT), "features", lambda _: pytest.fail("computed again"))
    assert torch.equal(unasked, first)


def other_weights(model):
    other = models.trainable_copy(model, text=False).requires_grad_(False)
    with torch.no_grad():
        other.clip.visual.proj[0, 0] += 1e-6
    return other


def other_normalisation(model):
    other = models.trainable_copy(model, text=False).requires_grad_(False)
    other.mean += 1e-3
    return other


def relabelled(images):
    return dataclasses.replace(images, labels=images.labels[::-1].copy())


OTHERS = {
    "weights": (lambda model, images: (other_weights(model), images, {}), "model"),
    "normalisation": (lambda model, images: (other_normalisation(model), images, {}), "model"),
    "data set": (lambda model, _: (model, image_set("digits"), {}), "images and prompts"),
    "fewer images": (lambda model, images: (model, images.sample(20), {}), "images"),
    "labels": (lambda model, images: (model, relabelled(images), {}), "images"),
    "prompt": (lambda model, images: (model, images, {"prompt": "a sketch of a {}"}), "prompts"),
    "transform": (lambda model, images: (model, images, {"transform": "crop"}), "transform"),
}


@pytest.mark.parametrize("what", OTHERS)
def test_another_model_set_prompt_or_transform_is_refused_and_gets_its_own(tiny, what):
    cache, key = cache_of(tiny, image_set())
    features(cache, key, torch.arange(20))
    change, named = OTHERS[what]
    model, images, options = change(tiny, image_set())
    other, other_key = cache_of(model, images, **options)
    assert other is not cache
    with pytest.raises(StaleCache, match=f"of another {named};"):
        features(cache, other_key, torch.arange(20))
    indices = torch.arange(20)
    served = features(other, other_key, indices)
    torch.testing.assert_close(served, recomputed(model, images, indices), rtol=1e-4, atol=1e-4)


def test_an_equal_model_is_the_same_model(tiny):
    copy = models.trainable_copy(tiny, text=True)
    assert copy.fingerprint() == tiny.fingerprint()
