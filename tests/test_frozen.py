"""What a frozen model says, kept: equal to computing it again, and never another's."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

from trainables import fingerprint, frozen, models
from trainables.config import TrialConfig
from trainables.data import registry
from trainables.data.fit import Fit
from trainables.data.images import Held
from trainables.frozen import FrozenKey, StaleCache, frozen_cache
from trainables.methods.tga import patch_attention
from trainables.models import PixelClip, cosines
from trainables.once import NOWHERE, Store
from trainables.pixels import to_pixels
from trainables.training import Trainer

PROMPT = "This is a photo of a {}"
COUNT = 40


@pytest.fixture(scope="module")
def tiny():
    return models.load("clip-tiny", None, "cpu")


def image_set(name="fashion-mnist-8k"):
    return registry.load(name, "train", Fit((28, 28))).sample(COUNT)


def cache_of(model, images, prompt=PROMPT, transform="none", store=NOWHERE):
    images = replace(images, templates=(prompt,))
    key = FrozenKey.of(model, images, transform)
    return frozen_cache(key, model, images, model.encode_classes(images.classes, [prompt]), store), key


def features(cache, key, indices):
    return cache.rows(key, indices, "features", lambda view: view.features)


def recomputed(model, images, indices):
    with torch.no_grad():
        return model.features(to_pixels(images.pixels(indices), model.device))


@pytest.mark.parametrize("name", ["fashion-mnist-8k", "digits"])
def test_what_is_served_is_what_recomputing_gives(tiny, name):
    images, indices = image_set(name), np.array([3, 0, 39, 3])
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
    kept = views.frozen.clean

    def attention(view):
        return patch_attention(view.tokens, view.label_text)

    served = kept.logits, kept.derived("attention of paper", attention)
    pixels = to_pixels(trainer.images.pixels(indices), trainer.device)
    with torch.no_grad():
        features, patches = trainer.pretrained.encode(pixels)
        logits = trainer.pretrained.scale * cosines(features, trainer.frozen_text)
        tokens = torch.cat([features[:, None], trainer.pretrained.patch_features(patches)], 1)
    expected = logits, patch_attention(tokens, trainer.frozen_text[views.labels])
    for one, other in zip(served, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-3)
    assert "_encoded" not in vars(kept)  # nothing was computed for this batch


def test_the_next_trial_finds_it_and_computes_nothing(tiny):
    cache, key = cache_of(tiny, image_set())
    first = features(cache, key, np.arange(COUNT))
    again, key = cache_of(tiny, image_set())
    assert again is cache
    unasked = again.rows(key, np.arange(COUNT), "features", lambda _: pytest.fail("computed again"))
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


def in_bfloat16(model):
    other = models.trainable_copy(model, text=False).requires_grad_(False)
    other.mixed_precision = True
    return other


def repainted(images):
    pixels = images.pixels()
    pixels[-1, -1, -1, -1] ^= 1
    return dataclasses.replace(images, store=Held(pixels), rows=np.arange(len(pixels)))


def renamed(images):
    return dataclasses.replace(images, classes=("shirt", *images.classes[1:]))


def relabelled(images):
    return dataclasses.replace(images, labels=images.labels[::-1].copy())


OTHERS = {
    "weights": (lambda model, images: (other_weights(model), images, {}), "model"),
    "normalisation": (lambda model, images: (other_normalisation(model), images, {}), "model"),
    "precision": (lambda model, images: (in_bfloat16(model), images, {}), "arithmetic"),
    "data set": (lambda model, _: (model, image_set("digits"), {}), "images and prompts"),
    "a byte of an image": (lambda model, images: (model, repainted(images), {}), "images"),
    "class name": (lambda model, images: (model, renamed(images), {}), "images and prompts"),
    "fewer images": (lambda model, images: (model, images.sample(20), {}), "images"),
    "labels": (lambda model, images: (model, relabelled(images), {}), "images"),
    "prompt": (lambda model, images: (model, images, {"prompt": "a sketch of a {}"}), "prompts"),
    "transform": (lambda model, images: (model, images, {"transform": "crop"}), "transform"),
}


@pytest.mark.parametrize("what", OTHERS)
def test_another_model_set_prompt_or_transform_is_refused_and_gets_its_own(tiny, what):
    cache, key = cache_of(tiny, image_set())
    features(cache, key, np.arange(20))
    change, named = OTHERS[what]
    model, images, options = change(tiny, image_set())
    other, other_key = cache_of(model, images, **options)
    assert other is not cache
    with pytest.raises(StaleCache, match=f"of another {named};"):
        features(cache, other_key, np.arange(20))
    indices = np.arange(20)
    served = features(other, other_key, indices)
    torch.testing.assert_close(served, recomputed(model, images, indices), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("what", OTHERS)
def test_the_store_serves_no_other(tiny, tmp_path, what):
    store, indices = Store(tmp_path), np.arange(20)
    cache, key = cache_of(tiny, image_set(), store=store)
    features(cache, key, indices)
    model, images, options = OTHERS[what][0](tiny, image_set())
    other, other_key = cache_of(model, images, **options, store=store)
    computed = []
    other.rows(other_key, indices, "features", lambda view: computed.append(view) or view.features)
    assert computed
    assert len(list(tmp_path.glob("frozen/*/manifest.json"))) == 2


SECOND = """
import hashlib, json, sys
import numpy as np
from pathlib import Path
from trainables.once import Store, array_kind

def compute():
    raise AssertionError("computed again")

rows = Store(Path(sys.argv[1])).get(array_kind("frozen"), json.loads(sys.argv[2]), compute)
assert isinstance(rows, np.memmap)
print(hashlib.sha256(rows.tobytes()).hexdigest())
"""


def test_another_process_maps_what_is_kept_bit_for_bit(tiny, tmp_path):
    images, indices = image_set(), np.arange(COUNT)
    cache, key = cache_of(tiny, images, store=Store(tmp_path))
    rows = features(cache, key, indices)
    assert torch.equal(rows, recomputed(tiny, images, indices))
    frozen._latest.clear()  # the next trial is in another process
    again, key = cache_of(tiny, images, store=Store(tmp_path))
    assert again is not cache
    assert torch.equal(again.rows(key, indices, "features", lambda _: pytest.fail("computed again")), rows)
    about = json.dumps({**dataclasses.asdict(key), "name": "features"})
    command = [sys.executable, "-c", SECOND, str(tmp_path), about]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == hashlib.sha256(rows.numpy().tobytes()).hexdigest()


@pytest.mark.parametrize("method", ["fare", "tga"])
def test_training_with_a_store_is_training_without(tmp_path, method):
    config = TrialConfig.model_validate(
        {"method": {"name": method}, "batch_size": 16, "data": {"images": 64}}
    )

    def trained(store):
        trainer = Trainer(config, seed=0, device="cpu", store=store)
        return [trainer.train_epoch().loss, *trainer.trained_weights().values()]

    without, first, second = trained(NOWHERE), trained(Store(tmp_path)), trained(Store(tmp_path))
    for one, *others in zip(without, first, second, strict=True):
        assert all(torch.equal(torch.as_tensor(one), torch.as_tensor(other)) for other in others)


@pytest.fixture
def keeping(tmp_path):
    """A model whose class texts are kept, and those encoded since."""
    model = models.trainable_copy(models.load("clip-tiny", None, "cpu"), text=False).requires_grad_(False)
    model.keep_class_texts(Store(tmp_path))
    return model


@pytest.fixture
def encoded(monkeypatch):
    calls = []
    original = PixelClip._encode_classes
    monkeypatch.setattr(PixelClip, "_encode_classes", lambda *a: calls.append(a[1:]) or original(*a))
    return calls


TEXT = (("sandal", "bag"), (PROMPT, "a sketch of a {}"))


def test_class_texts_are_encoded_once_also_for_copies_whose_text_tower_is_not_trained(keeping, encoded):
    first = keeping.encode_classes(*TEXT)
    assert torch.equal(first, keeping._encode_classes(*TEXT))
    encoded.clear()
    copy = models.trainable_copy(keeping, text=False)
    with torch.no_grad():
        copy.clip.visual.proj.add_(1)
    assert torch.equal(copy.encode_classes(*TEXT), first)
    assert not encoded


def test_a_trained_text_tower_is_never_served_from_the_store(keeping):
    first = keeping.encode_classes(*TEXT)
    copy = models.trainable_copy(keeping, text=True)
    with torch.no_grad():
        copy.clip.text_projection.mul_(torch.linspace(1, 2, copy.clip.text_projection.shape[1]))
    assert not torch.allclose(copy.encode_classes(*TEXT), first)


def with_another_text_tower(model, store):
    other = models.trainable_copy(model, text=True).requires_grad_(False)
    with torch.no_grad():
        other.clip.text_projection[0, 0] += 1e-6
    other.keep_class_texts(store)
    return other


@pytest.mark.parametrize("what", ["class name", "order of names", "template", "precision", "text tower"])
def test_class_texts_are_of_their_own_words_precision_and_model(keeping, encoded, tmp_path, what):
    keeping.encode_classes(*TEXT)
    encoded.clear()
    classes, templates = TEXT
    model = keeping
    if what == "class name":
        classes = ("sandals", "bag")
    elif what == "order of names":
        classes = classes[::-1]
    elif what == "template":
        templates = templates[:1]
    elif what == "precision":
        model.mixed_precision = True
    else:
        model = with_another_text_tower(keeping, Store(tmp_path))
    served = model.encode_classes(classes, templates)
    assert len(encoded) == 1
    assert torch.equal(served, model._encode_classes(classes, templates))


def test_a_fingerprint_is_read_from_the_weights_again_when_they_change(tiny, monkeypatch):
    model = models.trainable_copy(tiny, text=True)
    before = model.fingerprint()
    read = []
    original = fingerprint.digest
    monkeypatch.setattr(fingerprint, "digest", lambda *a: read.append(a) or original(*a))
    assert model.fingerprint() == before
    assert not read
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    model.features(torch.rand(1, 3, 28, 28)).sum().backward()
    optimizer.step()
    assert model.fingerprint() != before


def test_another_tokeniser_is_another_model(tiny):
    other = PixelClip(tiny.clip, lambda texts: tiny.tokenizer([text[::-1] for text in texts]))
    assert other.fingerprint() != tiny.fingerprint()


def test_an_equal_model_is_the_same_model(tiny):
    copy = models.trainable_copy(tiny, text=True)
    assert copy.fingerprint() == tiny.fingerprint()
