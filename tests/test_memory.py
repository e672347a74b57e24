"""Micro-batches, what happens when memory runs out, and how much of it a trial is told to need."""

from __future__ import annotations

import json
import math
from functools import partial

import numpy as np
import pytest
import torch

from tests.test_training import METHODS, same, small_resnet, trainer, trial, weights
from trainables import checkpoints, chunks, finetune, memory, models
from trainables.config import EvaluationConfig, TrialConfig
from trainables.data import registry
from trainables.errors import EXPECTED, MemoryShortage
from trainables.evaluate import evaluate
from trainables.training import Trainer

ids = lambda method: "-".join(map(str, method.values()))  # noqa: E731
BATCH = 8
ROWS = np.arange(BATCH)
GIB = 2**30


def moved(method, **changes):
    """A trainer somewhere on its way: at the start TGA's norms are of differences that are only rounding,
    and their gradients have no direction."""
    run = trainer(method, **changes)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in run.parameters:
            if parameter.ndim:
                noise = torch.randn(parameter.shape, generator=generator)
                parameter.add_(0.05 * parameter.std() * noise)
    return run


def gradients(run, rows=ROWS):
    """The means of the loss parts, the weights' gradients, and where the random numbers are afterwards."""
    generator = torch.Generator().manual_seed(5)
    draw = partial(run._draw, rows, run.images.pixels(rows), generator)
    means = run._gradients(draw, generator)
    found = {name: p.grad.clone() for name, p in run.model.clip.named_parameters() if p.grad is not None}
    return means, found, generator.get_state()


def assert_same_step(one, other, tolerance=2e-3):
    assert one[0].keys() == other[0].keys()
    for name, value in one[0].items():
        assert float(other[0][name]) == pytest.approx(float(value), rel=1e-4, abs=1e-6), name
    assert one[1].keys() == other[1].keys()
    for name, gradient in one[1].items():
        difference = (gradient - other[1][name]).norm() / gradient.norm().clamp(min=1e-6)
        assert difference < tolerance, (name, float(difference))
    assert torch.equal(one[2], other[2])


# Micro-batches


@pytest.mark.parametrize("method", METHODS, ids=ids)
@pytest.mark.parametrize("norm", [{"epsilon": 8 / 255}, {"norm": "l2", "epsilon": 0.5}], ids=["linf", "l2"])
def test_any_micro_batch_gives_the_same_step(method, norm):
    """Augmentation, attack and captions included: they are drawn for the whole batch."""
    changes = {"data": {"augment": True}, "attack": norm | {"steps": 1}, "batch_size": BATCH}
    whole = gradients(moved(method, **changes))
    for size in (1, 3):
        run = moved(method, **changes, runtime={"micro_batch": size})
        assert run.micro_batch == size
        assert_same_step(whole, gradients(run))


@pytest.mark.parametrize("method", [m for m in METHODS if m["name"] != "fare"], ids=ids)
def test_a_text_tower_trained_through_class_texts_gets_the_gradient_of_the_whole_loss(method):
    """Against plain autograd: images, class texts and captions encoded and differentiated in one graph."""
    changes = {"model": {"towers": "both"}, "batch_size": BATCH, "attack": {"epsilon": 8 / 255, "steps": 1}}
    run = moved(method, **changes)
    views = run._views(ROWS, torch.Generator().manual_seed(5))
    if method["name"] != "carot":  # which trains its text tower through captions
        views.trained.class_text = lambda: text
        text = run.model.class_texts(run.model.class_tokens(*run.vocabulary))
    sum(part.double().mean() for part in run.method.loss(views).values()).backward()
    plain = {name: p.grad.clone() for name, p in run.model.clip.named_parameters() if p.grad is not None}
    assert {"token_embedding.weight", "text_projection", "visual.proj"} <= set(plain)
    for size in (3, BATCH):
        found = gradients(moved(method, **changes, runtime={"micro_batch": size}))[1]
        assert found.keys() == plain.keys()
        for name, gradient in plain.items():
            difference = (gradient - found[name]).norm() / gradient.norm().clamp(min=1e-6)
            assert difference < 2e-3, (name, float(difference))


def test_class_texts_are_encoded_once_a_step_whatever_the_micro_batch(monkeypatch):
    run = trainer("tecoa", model={"towers": "both"}, batch_size=BATCH, runtime={"micro_batch": 2})
    encoded, original = [], models.PixelClip.text_features
    monkeypatch.setattr(
        models.PixelClip, "text_features", lambda *a: encoded.append(len(a[1])) or original(*a)
    )
    gradients(run)
    assert encoded == [10]


def test_what_the_text_tower_learns_is_restored_and_the_frozen_texts_stay(tmp_path):
    changes = {"model": {"towers": "both"}, "data": {"images": 32}}
    run = trainer("tecoa", **changes)
    frozen, before = run.frozen_text.clone(), weights(run.model)
    run.train_epoch()
    after = weights(run.model)
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert moved == {name for name, _ in run.model.clip.named_parameters()}
    assert torch.equal(run.pretrained.encode_classes(*run.vocabulary), frozen)
    checkpoints.save(tmp_path / checkpoints.FILE, run.state())
    restored = finetune.fine_tuned(trial("tecoa", **changes).model, tmp_path / checkpoints.FILE)
    assert same(weights(restored), after)


def test_carot_can_be_kept_from_training_its_text_tower():
    run = trainer("carot", model={"towers": "image"}, data={"images": 32})
    before = weights(run.model)
    run.train_epoch()
    after = weights(run.model)
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert moved == {n for n, _ in run.model.clip.named_parameters() if n.startswith("visual.")}


def test_only_the_last_blocks_are_trained_and_a_checkpoint_holds_no_others(tmp_path):
    changes = {"model": {"towers": "both", "blocks": 1}, "data": {"images": 32}}
    run = trainer("tecoa", **changes)
    before = weights(run.model)
    run.train_epoch()
    after = weights(run.model)
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert moved == set(run.trained_weights())
    assert {"visual.proj", "visual.ln_post.weight", "text_projection", "logit_scale"} <= moved
    assert not {"visual.conv1.weight", "token_embedding.weight", "positional_embedding"} & moved
    last = {len(run.model.clip.visual.transformer.resblocks) - 1}
    assert {int(name.split(".")[3]) for name in moved if name.startswith("visual.transformer.")} == last
    state = run.state()
    assert {name.removeprefix("model.") for name in state if name.startswith("model.")} == moved
    checkpoints.save(tmp_path / checkpoints.FILE, state)
    assert same(
        weights(finetune.fine_tuned(trial("tecoa", **changes).model, tmp_path / checkpoints.FILE)), after
    )


def saved_bytes(compute, model):
    own = {t.untyped_storage()._cdata for t in (*model.parameters(), *model.buffers())}
    storages = {}

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage._cdata not in own:
            storages[storage._cdata] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        kept = compute()
    return sum(storage.nbytes() for storage in storages.values()), kept


@pytest.mark.parametrize("encode", ["encode", "text_features"])
def test_chunks_hold_no_activations_and_change_no_numbers(encode):
    model = models.trainable_copy(models.load("clip-tiny", None, "cpu"), text=True)
    rows = {
        "encode": torch.rand(BATCH, 3, 28, 28, generator=torch.Generator().manual_seed(0)),
        "text_features": model.tokens([f"a photo of {n} bags" for n in range(BATCH)]),
    }[encode]
    results = []
    for size in (None, 3):
        held, output = saved_bytes(lambda size=size: getattr(model, encode)(rows, size), model)
        features = output if isinstance(output, torch.Tensor) else output[0]
        model.zero_grad()
        features.square().mul(torch.arange(features.shape[1])).sum().backward()
        gradient = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
        results.append((held, features.detach(), gradient))
    (whole, expected, gradient), (chunked, found, other) = results
    assert chunked < whole / 5
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    for name, value in gradient.items():
        assert (value - other[name]).norm() <= 1e-3 * value.norm() + 1e-6, name


# Out of memory


CUDA_ERROR = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nMore lines")
CPU_ERROR = RuntimeError(
    "[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory: 3 bytes"
)


def memory_for(monkeypatch, images, error=CUDA_ERROR):
    """From now on no model encodes more than so many images at a time, with gradient or without."""
    original = models.PixelClip._encode

    def encode(self, pixels):
        if len(pixels) > images:
            raise error
        return original(self, pixels)

    monkeypatch.setattr(models.PixelClip, "_encode", encode)


@pytest.mark.parametrize(
    ("method", "error"),
    [({"name": "pmg"}, CUDA_ERROR), ({"name": "carot", "average_every": 1}, CPU_ERROR)],
    ids=["pmg-cuda", "carot-cpu"],
)
def test_when_memory_runs_out_the_same_step_is_done_in_smaller_parts(monkeypatch, method, error):
    changes = {"batch_size": 32, "data": {"images": 64, "augment": True}}
    small = trainer(method, **changes, runtime={"micro_batch": 8})
    expected = small.train_epoch()
    run = trainer(method, **changes)
    assert run.micro_batch == 32
    memory_for(monkeypatch, 9, error)
    summary = run.train_epoch()
    assert (summary.micro_batch, summary.out_of_memory) == (8, 2)
    assert (expected.micro_batch, expected.out_of_memory) == (8, 0)
    assert summary.loss == expected.loss
    assert same(weights(run.model), weights(small.model))


def test_a_smaller_micro_batch_stays_and_survives_a_restore(monkeypatch, tmp_path):
    run = trainer("tecoa", epochs=2)
    memory_for(monkeypatch, 16)
    run.train_epoch()
    checkpoints.save(tmp_path / checkpoints.FILE, run.state())
    again = run.train_epoch()
    assert (again.micro_batch, again.out_of_memory) == (16, 0)
    restored = trainer("tecoa", epochs=2)
    restored.load_state(checkpoints.load(tmp_path / checkpoints.FILE))
    summary = restored.train_epoch()
    assert (summary.micro_batch, summary.out_of_memory) == (16, 0)
    assert same(weights(restored.model), weights(run.model))


def test_an_image_too_large_is_one_expected_line(monkeypatch):
    run = trainer("tecoa")
    memory_for(monkeypatch, 0)
    with pytest.raises(EXPECTED, match=r"single image at a time.*2\.00 GiB.*resources") as error:
        run.train_epoch()
    assert isinstance(error.value, MemoryShortage)
    assert "\n" not in str(error.value)


def test_other_errors_are_not_taken_for_a_lack_of_memory(monkeypatch):
    memory_for(monkeypatch, 0, RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    run = trainer("tecoa")
    with pytest.raises(RuntimeError, match="cannot be multiplied"):
        run.train_epoch()
    assert run.out_of_memory == 0


def test_rows_are_computed_once_each_in_order_where_memory_is_short():
    done = []

    def compute(rows):
        if rows.stop - rows.start > 3:
            raise CUDA_ERROR
        done.extend(range(rows.start, rows.stop))
        return rows.stop - rows.start

    assert list(chunks.batchwise(compute, 10, 8)) == [2, 2, 2, 2, 2]
    assert done == list(range(10))


@pytest.mark.parametrize(
    "further",
    [[], pytest.param(["apgd-ce", "margin-pgd"], marks=pytest.mark.slow)],
    ids=["pgd", "further"],
)
def test_an_evaluation_halves_its_batches_and_says_the_same(monkeypatch, further):
    model = models.load("clip-tiny", None, "cpu")
    config = EvaluationConfig.model_validate(
        {
            "attack": {"steps": 2},
            "images": 24,
            "further_attacks": [{"name": name, "steps": 3} for name in further],
            "confidence_attack": {"steps": 2},
        }
    )
    images = [registry.load("digits", "validation", model.fit)]
    expected = evaluate(model, images, config).summary.metrics
    memory_for(monkeypatch, 7)
    assert evaluate(model, images, config).summary.metrics == pytest.approx(
        expected, rel=1e-3, abs=1e-5, nan_ok=True
    )


# The trainable


def finetuned(folder, cpus=1.0, **changes):
    config = {
        "trial": {"method": {"name": "tecoa"}, "epochs": 1, "batch_size": 32, "data": {"images": 32}}
        | changes,
        "evaluation": {"attack": {"steps": 1}, "images": 20},
        "seed": 0,
        "folder": str(folder),
        "threads": 1,
        "cpus": cpus,
        "gpus": 0,
    }
    return finetune.Finetune(config)


def test_an_epochs_file_says_how_its_gradients_were_computed(monkeypatch, tmp_path):
    memory_for(monkeypatch, 8)
    run = finetuned(tmp_path)
    assert run.step()["failed"] is None
    epoch = json.loads((tmp_path / "epoch-001.json").read_text())
    assert (epoch["micro_batch"], epoch["out_of_memory"]) == (8, 2)


def test_a_trial_that_needs_more_than_its_share_accumulates(monkeypatch, tmp_path):
    need = memory.estimate(TrialConfig.model_validate({"method": {"name": "tecoa"}, "batch_size": 32}), "cpu")
    monkeypatch.setattr(memory, "share", lambda *_, **__: need.total(8))
    run = finetuned(tmp_path)
    assert run.trainer.micro_batch == 8
    run.step()
    assert json.loads((tmp_path / "epoch-001.json").read_text())["micro_batch"] == 8


def test_a_share_too_small_is_the_trials_reason_before_any_training(monkeypatch, tmp_path):
    monkeypatch.setattr(memory, "share", lambda *_, **__: GIB // 4)
    report = finetuned(tmp_path, cpus=0.5).step()
    assert report["done"]
    assert report["epoch"] == 0
    assert math.isnan(report["robust_accuracy"])
    assert "even with a single image" in report["failed"]
    assert "(cpus: 0.5) is 0.2 GiB" in report["failed"]
    assert "\n" not in report["failed"]
    assert not list(tmp_path.iterdir())


def test_what_a_model_has_not_is_the_trials_reason_too(tmp_path):
    report = finetuned(tmp_path, model={"blocks": 99}).step()
    assert "99" in report["failed"]
    assert report["done"]


# The estimate


@pytest.mark.parametrize(
    ("method", "towers"),
    [(m, towers) for m in METHODS for towers in (None, "both") if m["name"] != "fare" or towers is None],
)
def test_the_estimated_activations_are_those_that_a_real_loss_saves(method, towers):
    config = trial(method, model={"towers": towers}, batch_size=16, data={"images": 16})
    need = memory.estimate(config, "cpu")
    run = Trainer(config, 0, "cpu")
    measured = {}
    for count in (8, 16):
        views = run._views(np.arange(count), torch.Generator().manual_seed(0))
        run.method.attack_loss(views.trained.view(views.adversarial.pixels), views)  # fills the caches
        views = run._views(np.arange(count), torch.Generator().manual_seed(0))
        _ = views.trained.batch.adversarial
        measured[count], _ = saved_bytes(lambda views=views: run.method.loss(views), run.model)
    image = (measured[16] - measured[8]) / 8
    assert need.image / memory.OVERHEAD["cpu"] == pytest.approx(image, rel=0.1)


@pytest.mark.parametrize(
    ("changes", "weights_times", "trained_times"),
    [
        ({"optimizer": {"name": "sgd"}}, 2, 2),
        ({"optimizer": {"name": "sgd", "momentum": 0}}, 2, 1),
        ({"optimizer": {"name": "adamw"}}, 2, 3),
        ({"optimizer": {"name": "adamw"}, "model": {"towers": "both"}}, 2, 3),
        ({"optimizer": {"name": "adamw"}, "model": {"blocks": 1}}, 2, 3),
        ({"method": {"name": "carot"}, "optimizer": {"name": "adamw"}}, 3, 3),
    ],
)
def test_weights_gradients_and_optimiser_are_counted_exactly(changes, weights_times, trained_times):
    config = TrialConfig.model_validate({"method": {"name": "tecoa"}, "batch_size": 16} | changes)
    run = Trainer(config, 0, "cpu")
    weights = sum(v.numel() * v.element_size() for v in run.pretrained.clip.state_dict().values())
    trained = sum(p.numel() * p.element_size() for p in run.parameters)
    exact = weights_times * weights + trained_times * trained
    need = memory.estimate(config, "cpu")
    rest = need.fixed - memory.PROCESS["cpu"] - exact
    pixels = memory.PIXEL_COPIES * 16 * 3 * 28 * 28 * 4
    assert 0 <= rest - pixels < 0.05 * need.image * 16 + 2**16
    assert need.weights == sum(value.nbytes for value in checkpoints.weights(run.state()).values())


def test_on_cuda_activations_are_smaller_and_attention_is_fused_on_any_machine():
    config = {"model": {"name": "ViT-B-16", "pretrained": "random"}, "method": {"name": "tecoa"}}
    need = {d: memory.estimate(TrialConfig.model_validate(config), d) for d in ("cpu", "cuda")}
    image = {device: need[device].image / memory.OVERHEAD[device] for device in need}
    assert 0.45 * image["cpu"] < image["cuda"] < 0.75 * image["cpu"]
    matrices = 12 * 12 * 197 * 197 * 4  # all attention weights of an image, which are not kept
    assert image["cuda"] < 12 * 197 * 768 * 40 + matrices / 4
    assert not torch.is_autocast_enabled("cuda")


def test_the_estimate_allocates_nothing_and_leaves_no_traces():
    state = torch.get_rng_state()
    attention = torch.nn.functional.scaled_dot_product_attention
    need = memory.estimate(
        TrialConfig.model_validate(
            {"model": {"name": "ViT-H-14", "pretrained": "random"}, "method": {"name": "tecoa"}}
        ),
        "cuda",
    )
    assert need.fixed > 12 * GIB  # 4 GiB of weights, twice, gradients and momentum
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.nn.functional.scaled_dot_product_attention is attention
    assert torch.zeros(1).sum().item() == 0


def test_largest_halves_until_it_fits():
    need = memory.MemoryEstimate(fixed=100, image=10, text=0, texts=0, update=0, weights=0)
    assert need.largest(100 + 640, 64) == 64
    assert need.largest(100 + 639, 64) == 32
    assert need.largest(110, 48) == 1
    assert need.largest(109, 48) is None
    with_texts = memory.MemoryEstimate(fixed=0, image=10, text=2, texts=5, update=70, weights=0)
    assert [with_texts.total(n) for n in (1, 3, 10)] == [70, 70, 110]


def test_a_share_is_as_much_of_the_memory_as_of_the_cpus(monkeypatch):
    monkeypatch.setattr(
        memory.os, "sysconf", lambda name: {"SC_PAGE_SIZE": 4096, "SC_PHYS_PAGES": 2**20}[name]
    )
    monkeypatch.setattr(memory.os, "cpu_count", lambda: 8)
    assert memory.share("cpu", cpus=2, gpus=0) == GIB
    assert memory.share("cpu", cpus=16, gpus=0) == 4 * GIB
    assert memory.share("cpu", cpus=1, gpus=0, concurrent=2) == 2 * GIB
    assert memory.share("cpu", cpus=4, gpus=0, concurrent=8) == 2 * GIB


def test_a_gpu_that_others_hold_is_one_line(monkeypatch):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (GIB, 16 * GIB))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda: GIB // 2)
    memory.check_free(GIB)
    with pytest.raises(
        MemoryShortage, match=r"2\.0 GiB of the GPU's 16\.0 GiB, and 1\.5 GiB are free: other"
    ):
        memory.check_free(2 * GIB)


def test_plan_says_what_fits(monkeypatch):
    monkeypatch.setattr(memory, "gpus_to_plan_for", lambda: [("small", 3 * GIB), ("large", 40 * GIB)])
    config = {"model": {"name": "ViT-B-32", "pretrained": "random"}, "method": {"name": "tecoa"}}
    trials = [config | {"batch_size": size} for size in (64, 256)] + [config | {"batch_size": 64}]
    lines = memory.plan(trials, cpus=1, gpus=0.25)
    assert lines[0].startswith("ViT-B-32, tecoa, batch 64: a trial needs about ")
    assert lines[1] == "  the weights that an epoch leaves on disk: 335.1 MiB"
    assert lines[4].startswith("ViT-B-32, tecoa, batch 256: a trial needs about ")
    assert len(lines) == 8
    assert "MiB an image x 256)" in lines[4]
    assert (
        lines[6] == "  small: none as it is; with gpus 0.25: not even a single image at a time fits 0.8 GiB"
    )
    assert lines[7].endswith("side by side; with gpus 0.25: fits 10.0 GiB")


@pytest.mark.gpu
def test_the_estimate_is_near_the_peak_on_cuda():
    config = TrialConfig.model_validate(
        {
            "model": {"name": "ViT-B-32", "pretrained": "random"},
            "method": {"name": "tecoa"},
            "attack": {"at": "model"},
            "batch_size": 64,
            "data": {"images": 64},
        }
    )
    run = Trainer(config, 0, "cuda")
    torch.cuda.reset_peak_memory_stats()
    for step in range(2):
        run.train_step(step, np.arange(64), torch.Generator("cuda").manual_seed(0))
    estimated = memory.estimate(config, "cuda").total(64) - memory.PROCESS["cuda"]
    assert estimated == pytest.approx(torch.cuda.max_memory_allocated(), rel=0.2)


@pytest.mark.gpu
def test_a_fraction_of_a_gpu_is_a_limit_that_a_trial_keeps_to():
    total = torch.cuda.get_device_properties(0).total_memory
    try:
        config = trial("tecoa")
        assert memory.claim(config, "cuda", cpus=1, gpus=0.25) == 32
        with pytest.raises(torch.OutOfMemoryError):
            torch.empty(total // 2, dtype=torch.uint8, device="cuda")
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)


def test_a_tower_without_blocks_is_refused():
    with pytest.raises(EXPECTED, match="image tower has no transformer blocks"):
        models.trainable_copy(small_resnet(), text=False, blocks=1)
