"""Training, resuming, evaluating and storing, on clip-tiny and a few images."""

from __future__ import annotations

import math

import numpy as np
import open_clip
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from trainables import checkpoints, models
from trainables.config import EvaluationConfig, OptimizerConfig, TrialConfig
from trainables.data import registry
from trainables.data.fit import Fit
from trainables.evaluate import evaluate
from trainables.methods import METHODS as METHODS_BY_NAME
from trainables.methods.base import cross_entropy, kl_divergence
from trainables.models import cosines
from trainables.training import (
    Diverged,
    Trainer,
    augment,
    set_learning_rate,
    to_pixels,
    update_average,
)
from trainables.views import Batch, BatchViews, ModelViews

PROMPT = "This is a photo of a {}"
METHODS = [
    {"name": "tecoa"},
    {"name": "pmg"},
    {"name": "dirichlet"},
    {"name": "dirichlet", "weight_normalisation": "evidence", "weight": 1.0},
    {"name": "carot", "average_every": 1},
    {"name": "fare"},
    {"name": "tga"},
    {"name": "agft"},
    {"name": "pmg", "variant": "official_code"},
    {"name": "tga", "variant": "official_code"},
]


def trial(method="tecoa", epochs=1, optimizer=None, **changes):
    method = {"name": method} if isinstance(method, str) else method
    data = {"images": 64} | changes.pop("data", {})
    return TrialConfig.model_validate(
        {
            "method": method,
            "epochs": epochs,
            "batch_size": 32,
            "data": data,
            "optimizer": optimizer or {"learning_rate": 1e-4},
        }
        | changes
    )


def trainer(*args, seed=0, device="cpu", **changes):
    return Trainer(trial(*args, **changes), seed=seed, device=device)


def weights(model):
    return {name: value.detach().clone() for name, value in model.clip.state_dict().items()}


def changed(before, after):
    return {name for name in before if not torch.equal(before[name], after[name])}


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


# One epoch


@pytest.mark.parametrize("method", METHODS, ids=lambda m: "-".join(map(str, m.values())))
def test_an_epoch_changes_what_the_method_trains_and_nothing_else(method):
    run = trainer(method)
    pretrained, before = weights(run.pretrained), weights(run.model)
    assert same(pretrained, before)
    summary = run.train_epoch()
    assert math.isfinite(summary.loss)
    assert summary.loss == pytest.approx(sum(summary.parts.values()))
    assert summary.epoch == run.epoch == 1
    assert summary.images_per_second > 0
    moved = changed(before, weights(run.model))
    assert {name for name in moved if name.startswith("visual.")} == {
        name for name, _ in run.model.clip.named_parameters() if name.startswith("visual.")
    }
    outside = {name for name in moved if not name.startswith("visual.")}
    if method["name"] == "carot":
        assert {"logit_scale", "text_projection", "ln_final.weight", "token_embedding.weight"} <= outside
        assert changed(before, weights(run.average))
    else:
        assert not outside
    assert same(pretrained, weights(run.pretrained))
    assert all(parameter.grad is None for parameter in run.pretrained.parameters())


def test_the_same_seed_gives_the_same_weights_and_another_seed_others():
    runs = [trainer("pmg", data={"augment": True}, seed=seed) for seed in (3, 3, 4)]
    for noise, run in enumerate(runs):
        torch.manual_seed(noise)  # the global generators play no part
        np.random.seed(noise)
        run.train_epoch()
    first, second, third = (weights(run.model) for run in runs)
    assert same(first, second)
    assert changed(first, third)


def test_training_leaves_the_global_generators_alone():
    run = trainer({"name": "carot", "average_every": 1})
    before = torch.get_rng_state(), np.random.get_state()[1].copy()
    run.train_epoch()
    assert torch.equal(torch.get_rng_state(), before[0])
    assert np.array_equal(np.random.get_state()[1], before[1])


def test_the_loss_reported_is_that_of_the_batches():
    """At a learning rate of next to nothing, and without an attack: the zero-shot cross-entropy."""
    run = trainer(
        "tecoa", optimizer={"learning_rate": 1e-30}, attack={"epsilon": 1e-9, "steps": 1, "step_size": 0}
    )
    pixels = to_pixels(run.images.pixels(), run.device)
    with torch.no_grad():
        logits = run.pretrained.scale * cosines(run.pretrained.features(pixels), run.frozen_text)
    expected = torch.nn.functional.cross_entropy(logits, torch.from_numpy(run.images.labels))
    assert run.train_epoch().loss == pytest.approx(expected.item(), rel=1e-3)


def test_adversarial_training_makes_the_model_more_robust():
    attack = {"epsilon": 8 / 255, "steps": 2}
    run = trainer(
        "tecoa",
        data={"images": 512},
        optimizer={"learning_rate": 5e-3},
        attack=attack,
        batch_size=64,
    )
    images = [registry.load("fashion-mnist-8k", "validation", Fit((28, 28)))]
    config = EvaluationConfig.model_validate({"attack": {"steps": 5}, "images": 100})
    before = evaluate(run.pretrained, images, config).summary.metrics["robust_accuracy"]
    run.train_epoch()
    assert evaluate(run.model, images, config).summary.metrics["robust_accuracy"] > before + 0.1


def test_a_diverged_trial_says_so():
    run = trainer("tecoa", optimizer={"learning_rate": 1e30})
    with pytest.raises(Diverged, match=r"the training loss is (nan|inf) in epoch 1"):
        run.train_epoch()


def test_the_gradient_clip_bounds_a_step():
    rate, clip = 1e-3, 0.5
    run = trainer(
        "tecoa", optimizer={"learning_rate": rate, "momentum": 0, "gradient_clip": clip}, data={"images": 32}
    )
    before = weights(run.model)
    run.train_epoch()
    after = weights(run.model)
    step = math.sqrt(sum((after[name] - before[name]).double().square().sum().item() for name in before))
    assert step == pytest.approx(rate * clip, rel=1e-2)


@pytest.mark.parametrize("warmup", [0, 3])
def test_the_learning_rate_rises_linearly_and_falls_as_a_cosine(warmup):
    config = OptimizerConfig(learning_rate=0.1, warmup_steps=warmup)
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=1.0)
    rates = []
    for step in range(10):
        set_learning_rate(optimizer, config, step, 10)
        rates.append(optimizer.param_groups[0]["lr"])
    rising = [0.1 * (step + 1) / warmup for step in range(warmup)]
    falling = [0.05 * (1 + math.cos(math.pi * n / (10 - warmup))) for n in range(10 - warmup)]
    assert rates == pytest.approx(rising + falling)
    assert max(rates) == pytest.approx(0.1)


# Views


def test_student_and_teacher_see_the_same_captions():
    model = models.load("clip-tiny", None, "cpu")
    drawn = []

    def draw():
        drawn.append(model.tokens(["a photo of a bag", "a photo of a coat"] if drawn else ["one", "two"]))
        return drawn[-1]

    text = model.encode_classes(["bag", "coat"], ["{}"])
    batch = Batch(torch.rand(2, 3, 28, 28), torch.tensor([0, 1]), draw_captions=draw)
    student, teacher = (ModelViews(model, lambda: text, batch, gradient=False) for _ in "ab")
    views = BatchViews(student, student, frozen=lambda: student, average=lambda: teacher)
    assert torch.equal(views.adversarial.contrast, views.average.clean.contrast)
    assert len(drawn) == 1


def test_class_texts_are_encoded_where_a_loss_is_about_classes_and_once(monkeypatch):
    encoded = []
    original = models.PixelClip.encode_classes
    monkeypatch.setattr(models.PixelClip, "encode_classes", lambda *a: encoded.append(a) or original(*a))
    for epsilon, expected in ((0, 0), (8 / 255, 1)):  # the clean CaRot compares images with captions alone
        run = trainer("carot", attack={"epsilon": epsilon, "steps": 3}, data={"images": 32})
        encoded.clear()
        run.train_epoch()
        assert len(encoded) == expected


def test_views_are_computed_once_and_frozen_ones_have_no_graph():
    run = trainer("pmg")
    views = run._views(np.arange(8), torch.Generator().manual_seed(0))
    assert views.adversarial.logits is views.adversarial.logits
    assert views.adversarial.logits.requires_grad
    assert views.clean.logits.requires_grad
    assert not views.frozen.adversarial.logits.requires_grad
    assert not views.frozen.clean.logits.requires_grad
    assert not views.average.clean.contrast.requires_grad
    assert (views.adversarial.pixels - views.clean.pixels).abs().max() <= 8 / 255 + 1e-6
    pixels = to_pixels(run.images.pixels(slice(8)), run.device)
    with torch.no_grad():  # from the cache of frozen features, of these very images
        expected = run.pretrained.scale * cosines(run.pretrained.features(pixels), run.frozen_text)
    torch.testing.assert_close(views.frozen.clean.logits, expected, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("method", METHODS, ids=lambda m: "-".join(map(str, m.values())))
def test_only_the_trained_model_receives_gradient(method):
    run = trainer(method)
    views = run._views(np.arange(8), torch.Generator().manual_seed(0))
    sum(part.double().mean() for part in run.method.loss(views).values()).backward()
    for other in (run.pretrained, run.average):
        assert all(parameter.grad is None for parameter in other.parameters())
    for pair in (views.detached, views.frozen, views.average):
        for view in (pair.clean, pair.adversarial):
            assert not any(t.requires_grad for t in (view.features, view.tokens, view.cosines, view.logits))
    received = {name for name, p in run.model.clip.named_parameters() if p.grad is not None}
    trained = {name for name, p in run.model.clip.named_parameters() if p.requires_grad}
    assert received == trained
    assert not views.adversarial.pixels.requires_grad


def test_what_an_attack_asks_for_first_has_its_gradient_in_the_loss():
    class Both(METHODS_BY_NAME["tecoa"]):
        """Its attack moves away from the clean logits, its loss is of nothing else."""

        def attack_loss(self, attacked, views):
            return kl_divergence(views.clean.logits, attacked.logits)

        def loss(self, views):
            assert not torch.equal(views.adversarial.logits, views.clean.logits)
            return {"clean": cross_entropy(views.clean.logits, views.labels)}

    subject = trainer()
    subject.method = Both()
    before = weights(subject.model)
    subject.train_epoch()
    assert changed(before, weights(subject.model))


def test_pmgs_clean_logits_are_a_target_and_in_its_released_code_are_not():
    """The gradient with respect to the weights, against that of the formula with and without a cut."""
    for variant, cut in (("paper", True), ("official_code", False)):
        run = trainer({"name": "pmg", "variant": variant, "alpha": 0.0, "beta": 2.0})
        views = run._views(np.arange(8), torch.Generator().manual_seed(0))
        loss = sum(part.double().mean() for part in run.method.loss(views).values())
        kind = "logits" if variant == "paper" else "cosines"
        x, clean = getattr(views.adversarial, kind), getattr(views.clean, kind)
        clean = clean.detach() if cut else clean
        log_p, log_q = clean.log_softmax(-1), x.log_softmax(-1)
        kl = (log_p.exp() * (log_p - log_q)).sum(-1)
        weight = 2.0 if variant == "paper" else 2.0 * 8
        formula = torch.nn.functional.cross_entropy(x, views.labels) + weight * kl.mean()
        proj = run.model.clip.visual.proj
        gradient, expected = (torch.autograd.grad(f, proj, retain_graph=True)[0] for f in (loss, formula))
        torch.testing.assert_close(gradient, expected, rtol=1e-3, atol=1e-5)


@given(seed=st.integers(0, 99))
@settings(max_examples=10)
def test_augmentation_keeps_range_shape_and_constant_images(seed):
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.rand(3, 3, 8, 8, generator=generator)
    result = augment(pixels, generator)
    assert result.shape == pixels.shape
    assert result.min() >= 0
    assert result.max() <= 1
    flat = torch.full((2, 3, 8, 8), 0.25)
    torch.testing.assert_close(augment(flat, generator), flat)


def test_pixels_are_bytes_over_255():
    images = np.arange(2 * 4 * 5 * 3, dtype=np.uint8).reshape(2, 4, 5, 3)
    images.setflags(write=False)
    expected = images.transpose(0, 3, 1, 2) / 255
    np.testing.assert_allclose(to_pixels(images, torch.device("cpu")), expected, rtol=1e-6)


def test_the_average_is_that_of_the_formula():
    model = models.load("clip-tiny", None, "cpu")
    average, other = (models.trainable_copy(model, text=True) for _ in "ab")
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.add_(1.0)
    expected = {n: 0.9 * p + 0.1 * other.clip.get_parameter(n) for n, p in average.clip.named_parameters()}
    update_average(average, other, 0.9)
    for name, parameter in average.clip.named_parameters():
        torch.testing.assert_close(parameter, expected[name])


def small_resnet():
    """A CLIP with a ResNet, hence batch normalisation."""
    clip = open_clip.CLIP(
        embed_dim=16,
        vision_cfg={"layers": [1, 1, 1, 1], "width": 16, "image_size": 32, "head_width": 16},
        text_cfg={"context_length": 16, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
    )
    clip.visual.preprocess_cfg = {"mean": (0.5,) * 3, "std": (0.3,) * 3}
    tiny = models.load("clip-tiny", None, "cpu")
    return models.PixelClip(clip, tiny.tokenizer).eval().requires_grad_(False)


def test_batch_normalisation_keeps_its_statistics_so_a_checkpoint_is_the_whole_model():
    model = small_resnet()
    run = Trainer(trial("pmg"), seed=0, pretrained=model)
    run.train_epoch()
    moved = changed(weights(model), weights(run.model))
    assert {"visual.conv1.weight", "visual.bn1.weight"} <= moved
    assert moved <= {name for name, _ in run.model.clip.named_parameters()}  # and no statistics
    other = Trainer(trial("pmg"), seed=0, pretrained=model)
    other.load_state(run.state())
    assert same(weights(run.model), weights(other.model))


# Resuming


@pytest.mark.parametrize(
    ("method", "optimizer"),
    [
        ("pmg", {"name": "sgd", "momentum": 0.9, "learning_rate": 1e-3, "weight_decay": 1e-4}),
        ("dirichlet", {"name": "adamw", "learning_rate": 1e-4, "weight_decay": 0.1, "warmup_steps": 3}),
        (
            {"name": "carot", "average_every": 2},
            {"name": "adamw", "learning_rate": 1e-4, "weight_decay": 0.1},
        ),
        ({"name": "carot", "average_every": 3}, {"name": "sgd", "learning_rate": 1e-3}),
    ],
)
def test_a_restored_run_goes_on_bit_for_bit(tmp_path, method, optimizer):
    def make():
        return trainer(method, epochs=2, optimizer=optimizer)

    whole = make()
    whole.train_epoch()
    whole.train_epoch()

    first = make()
    first.train_epoch()
    checkpoints.save(tmp_path / checkpoints.FILE, first.state())
    first.train_epoch()  # what goes on after a checkpoint does not change it
    second = make()
    second.load_state(checkpoints.load(tmp_path / checkpoints.FILE))
    assert second.epoch == 1
    second.train_epoch()

    assert same(whole.state(), second.state())
    assert same(weights(whole.model), weights(second.model))
    assert same(weights(whole.average), weights(second.average))


def test_a_checkpoint_is_whole_or_not_there(tmp_path):
    assert checkpoints.load(tmp_path / checkpoints.FILE) is None
    tensors = {"epoch": torch.tensor(3), "model.a": torch.rand(4, 5)}
    checkpoints.save(tmp_path / checkpoints.FILE, tensors)
    assert same(checkpoints.load(tmp_path / checkpoints.FILE), tensors)
    assert [file.name for file in tmp_path.iterdir()] == [checkpoints.FILE]
    data = (tmp_path / checkpoints.FILE).read_bytes()
    for length in range(len(data)):
        (tmp_path / checkpoints.FILE).write_bytes(data[:length])
        assert checkpoints.load(tmp_path / checkpoints.FILE) is None, length
    checkpoints.save(tmp_path / checkpoints.FILE, tensors)
    assert same(checkpoints.load(tmp_path / checkpoints.FILE), tensors)


@pytest.mark.gpu
@pytest.mark.parametrize("method", METHODS, ids=lambda m: "-".join(map(str, m.values())))
def test_an_epoch_and_a_restore_on_cuda(tmp_path, method):
    optimizer = {"name": "adamw", "learning_rate": 1e-4}
    run = trainer(method, epochs=2, optimizer=optimizer, device="cuda")
    assert math.isfinite(run.train_epoch().loss)
    assert all(value.is_cuda and value.isfinite().all() for value in run.trained_weights().values())
    checkpoints.save(tmp_path / checkpoints.FILE, run.state())
    restored = trainer(method, epochs=2, optimizer=optimizer, device="cuda")
    restored.load_state(checkpoints.load(tmp_path / checkpoints.FILE))
    assert math.isfinite(restored.train_epoch().loss)


@pytest.mark.gpu
@pytest.mark.parametrize("method", METHODS, ids=lambda m: "-".join(map(str, m.values())))
def test_a_step_never_waits_for_the_device(method):
    run = trainer(method, device="cuda")
    generator = torch.Generator("cuda").manual_seed(0)
    run.train_step(0, np.arange(32), generator)  # fills the caches
    torch.cuda.set_sync_debug_mode("error")
    try:
        run.train_step(1, np.arange(32, 64), generator)
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_no_byte_of_a_checkpoint_can_change_unnoticed(tmp_path):
    file, tensors = tmp_path / checkpoints.FILE, {"epoch": torch.tensor(3), "model.a": torch.rand(4, 5)}
    checkpoints.save(file, tensors)
    data = file.read_bytes()
    for index in range(len(data)):
        file.write_bytes(data[:index] + bytes([data[index] ^ 1]) + data[index + 1 :])
        loaded = checkpoints.load(file)
        assert loaded is None or same(loaded, tensors), index
