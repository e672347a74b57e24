"""clip-tiny, the pixel model, and what is said when a model can't be had."""

from __future__ import annotations

import json
import shutil

import numpy as np
import open_clip
import pytest
import torch
import torch.nn.functional as F

from trainables import models
from trainables.config import EvaluationConfig, TrialConfig
from trainables.data import registry
from trainables.data.fit import Fit
from trainables.embedded import MODELS
from trainables.errors import ModelError
from trainables.evaluate import evaluate
from trainables.models import PixelClip, class_prompts, cosines
from trainables.preflight import check_model
from trainables.training import Trainer

FOLDER = MODELS["clip-tiny"]
PROMPT = "This is a photo of a {}"


@pytest.fixture(scope="module")
def tiny():
    return models.load("clip-tiny", None, "cpu")


def pixels(count=2, size=28):
    return torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(0))


def test_clip_tiny_is_what_open_clip_loads_from_the_folder(tiny):
    clip = open_clip.create_model(f"local-dir:{FOLDER}", precision="fp32").eval()
    for name, value in clip.state_dict().items():
        assert torch.equal(value, tiny.clip.state_dict()[name]), name
    assert tiny.image_size == (28, 28)
    assert tiny.scale.item() == pytest.approx(100, rel=1e-3)
    assert not any(parameter.requires_grad for parameter in tiny.parameters())
    assert not any(module.training for module in tiny.modules())


def test_a_model_is_loaded_once(tiny):
    assert models.load("clip-tiny", None, "cpu") is tiny


@pytest.mark.parametrize(("name", "least"), [("fashion-mnist-8k", 0.85), ("digits", 0.90)])
def test_clip_tiny_is_accurate_and_not_robust(tiny, name, least):
    images = registry.load(name, "test", Fit((28, 28)))
    attack = {"epsilon": 8 / 255, "steps": 10}
    config = EvaluationConfig.model_validate({"attack": attack, "images": 300})
    metrics = evaluate(tiny, [images], config).summary.metrics
    assert metrics["clean_accuracy"] >= least
    assert metrics["robust_accuracy"] <= 0.5 * metrics["clean_accuracy"]


def test_pixels_are_resized_and_normalised_inside(tiny):
    """By torch's own resize, and with the mean and deviation that the model's folder names."""
    preprocess = json.loads((FOLDER / "open_clip_config.json").read_text())["preprocess_cfg"]
    native = pixels(size=40)
    resized = F.interpolate(native, (28, 28), mode="bicubic", antialias=True).clamp(0, 1)
    mean, std = (torch.tensor(preprocess[key]).view(3, 1, 1) for key in ("mean", "std"))
    expected = tiny.clip.encode_image((resized - mean) / std)
    torch.testing.assert_close(tiny.features(native), expected)


def test_an_image_of_the_models_size_is_not_resized(tiny):
    expected = tiny.clip.encode_image((pixels() - tiny.mean) / tiny.std)
    assert torch.equal(tiny.features(pixels()), expected)


@pytest.mark.parametrize("size", [8, 28, 40])
def test_gradients_reach_the_pixels_at_their_native_size(tiny, size):
    native = pixels(size=size).requires_grad_()
    tiny.features(native).square().sum().backward()
    assert native.grad.shape == native.shape
    assert (native.grad != 0).float().mean() > 0.95


def test_text_features_have_unit_norm_and_no_graph(tiny):
    text = tiny.encode_classes(["sandal", "bag"], [PROMPT])
    torch.testing.assert_close(text.norm(dim=-1), torch.ones(2))
    assert not text.requires_grad


def test_cosines_are_cosines(tiny):
    text = tiny.encode_classes(["sandal", "bag", "coat"], [PROMPT])
    features = tiny.features(pixels())
    a, b = features.double().numpy(), text.double().numpy()
    expected = a @ b.T / np.linalg.norm(a, axis=1)[:, None] / np.linalg.norm(b, axis=1)
    np.testing.assert_allclose(cosines(features, text), expected, atol=1e-6)


@pytest.mark.parametrize("template", ["a photo of a {}.", "a photo of a {c}."])
def test_prompts_take_either_placeholder(template):
    assert class_prompts(template, ["bag"]) == ["a photo of a bag."]


# Copies


def test_a_copy_trains_the_image_tower_alone(tiny):
    copied = models.trainable_copy(tiny, text=False)
    for name, parameter in copied.clip.named_parameters():
        assert parameter.requires_grad == name.startswith("visual."), name


def test_a_copy_with_text_trains_everything(tiny):
    copied = models.trainable_copy(tiny, text=True)
    assert all(parameter.requires_grad for parameter in copied.clip.parameters())
    assert any(name == "logit_scale" for name, _ in copied.clip.named_parameters())


def test_a_copy_shares_no_weights(tiny):
    copied = models.trainable_copy(tiny, text=True)
    # close, not equal: attention takes another path where gradients are asked for
    torch.testing.assert_close(copied.features(pixels()), tiny.features(pixels()), rtol=1e-4, atol=1e-4)
    before = tiny.features(pixels())
    with torch.no_grad():
        for parameter in copied.parameters():
            parameter.add_(1)
    assert torch.equal(tiny.features(pixels()), before)


def test_projections_are_those_of_the_towers(tiny):
    visual, text = tiny.projections()
    assert visual is tiny.clip.visual.proj
    assert text is tiny.clip.text_projection
    assert visual.shape == (96, 64)
    assert text.shape == (64, 64)


def test_a_model_without_linear_projections_is_refused(tiny):
    copied = models.trainable_copy(tiny, text=True)
    copied.clip.visual.proj = None
    with pytest.raises(ModelError, match="no linear image and text projections"):
        PixelClip(copied.clip, copied.tokenizer).projections()


# What can't be had


def no_download(*_args, **_kwargs):
    raise AssertionError("nothing should be downloaded")


@pytest.mark.parametrize(
    ("name", "pretrained", "message"),
    [
        ("ViT-B-23", "openai", "no architecture 'ViT-B-23'"),
        ("ViT-B-32", None, "needs `pretrained`"),
        ("ViT-B-32", "opnai", "no weights 'opnai' of ViT-B-32; it has openai,"),
        ("ViT-B-32-quickgelu", "laion2b_s34b_b79k", "no weights 'laion2b_s34b_b79k'"),
        ("local-dir:/nowhere", None, "expected open_clip_config.json"),
    ],
)
def test_what_is_wrong_with_a_name_is_said_without_a_download(monkeypatch, name, pretrained, message):
    monkeypatch.setattr(open_clip, "download_pretrained", no_download)
    with pytest.raises(ModelError, match=message) as error:
        check_model(name, pretrained)
    assert "\n" not in str(error.value)


def offline(*_args, **_kwargs):
    raise OSError("We couldn't connect\nCheck your internet connection")


def test_missing_weights_are_one_line_that_says_what_to_do(monkeypatch):
    monkeypatch.setattr(open_clip, "download_pretrained", offline)
    monkeypatch.setattr(open_clip.factory, "download_pretrained", offline)
    with pytest.raises(ModelError, match=r"not on this machine.*local-dir:FOLDER") as error:
        check_model("ViT-B-32", "openai")
    assert "\n" not in str(error.value)
    with pytest.raises(ModelError, match="can't be loaded") as error:
        models.load.__wrapped__("ViT-B-32", "openai", "cpu")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "pretrained", "of_the_weights"),
    [("ViT-B-32-quickgelu", "openai", False), ("RN50-quickgelu", "cc12m", False)],
)
def test_a_quickgelu_mismatch_is_refused(monkeypatch, name, pretrained, of_the_weights):
    """The architecture says QuickGELU and the weights were trained without: open_clip only warns.

    Its own tables hold no such pair at present, hence a changed entry; nothing is downloaded.
    """
    entry = open_clip.get_pretrained_cfg(name, pretrained) | {"quick_gelu": of_the_weights}
    monkeypatch.setattr(open_clip, "get_pretrained_cfg", lambda *_: entry)
    monkeypatch.setattr(open_clip.factory, "get_pretrained_cfg", lambda *_: entry)
    monkeypatch.setattr(open_clip.factory, "download_pretrained", lambda *_, **__: "/nowhere")
    with pytest.raises(ModelError, match="QuickGELU mismatch"):
        models.load.__wrapped__(name, pretrained, "cpu")


@pytest.mark.parametrize(("tag", "expected"), [("openai", True), ("laion2b_s34b_b79k", False)])
def test_the_weights_decide_on_quickgelu(monkeypatch, tag, expected):
    """`ViT-B-32` with the tag openai is the QuickGELU model, as users of open_clip expect."""
    asked = {}

    def create_model(_name, **options):
        asked.update(options)
        raise RuntimeError("enough")

    monkeypatch.setattr(open_clip, "create_model", create_model)
    with pytest.raises(ModelError):
        models.load.__wrapped__("ViT-B-32", tag, "cpu")
    assert asked["force_quick_gelu"] is expected


def test_an_exported_folder_loads_and_a_broken_one_is_told(tmp_path, tiny):
    folder = tmp_path / "mine"
    shutil.copytree(FOLDER, folder)
    check_model(f"local-dir:{folder}", None)
    loaded = models.load.__wrapped__(f"local-dir:{folder}", None, "cpu")
    assert torch.equal(loaded.features(pixels()), tiny.features(pixels()))
    (folder / "open_clip_model.safetensors").write_bytes(b"broken")
    with pytest.raises(ModelError, match="can't be loaded") as error:
        models.load.__wrapped__(f"local-dir:{folder}", None, "cpu")
    assert "\n" not in str(error.value)


# Patches


def test_patch_features_are_those_of_the_tower_and_its_features_stay_the_same(tiny):
    """The class token's output, projected as the patches' are, is the image's feature."""
    images = pixels(4)
    features, patches = tiny.encode(images)
    assert torch.equal(features, tiny.features(images))
    assert patches.shape == (4, 16, 96)
    assert tiny.patch_grid == (4, 4)
    outputs = []
    hook = tiny.clip.visual.ln_post.register_forward_hook(lambda *a: outputs.append(a[-1]))
    with torch.no_grad():
        tiny.features(images)
    hook.remove()
    projected = outputs[0] @ tiny.clip.visual.proj
    torch.testing.assert_close(projected[:, 0], features, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(projected[:, 1:], tiny.patch_features(patches), rtol=1e-4, atol=1e-5)
    assert isinstance(tiny.clip.encode_image(images), torch.Tensor)  # as before, to everybody else


def test_a_tower_without_patches_is_refused():
    clip = open_clip.create_model("RN50", pretrained=None)
    model = PixelClip(clip, None)
    with pytest.raises(ModelError, match="no patch tokens"):
        model.patch_features(model.encode(pixels(1, 224))[1])


def test_channels_last_and_compile_change_nothing_but_rounding(monkeypatch):
    compiled, compile_module = [], torch.nn.Module.compile

    def without_a_compiler(module):  # all of torch.compile but the C++ that it would write
        compiled.append(module)
        compile_module(module, backend="aot_eager")

    monkeypatch.setattr(torch.nn.Module, "compile", without_a_compiler)
    config = {"method": {"name": "pmg"}, "batch_size": 16, "data": {"images": 32}}
    losses = []
    for runtime in ({}, {"channels_last": True}, {"fused_optimizer": True}, {"compile": True}):
        trainer = Trainer(TrialConfig.model_validate(config | {"runtime": runtime}), seed=0, device="cpu")
        losses.append([trainer.train_epoch().loss, trainer.train_epoch().loss])
    assert len(compiled) == 1
    for other in losses[1:]:
        assert other == pytest.approx(losses[0], rel=1e-3)
