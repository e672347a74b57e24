"""clip-tiny, the pixel model, and what is said when a model can't be had."""

from __future__ import annotations

import copy
import json
import re
import shutil
import sys
import types
from itertools import product

import numpy as np
import open_clip
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file

from trainables import models
from trainables.config import EvaluationConfig, ModelConfig, TrialConfig
from trainables.data import registry
from trainables.data.fit import Fit
from trainables.embedded import MODELS
from trainables.errors import ModelError
from trainables.evaluate import evaluate
from trainables.models import PixelClip, class_prompts, cosines
from trainables.preflight import check, check_model
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
        ("ViT-B-32", None, "needs `pretrained`, a weight tag such as openai, or `random`"),
        ("ViT-B-32", "weights/mine.pt", "no weights 'weights/mine.pt'.*local-dir:FOLDER"),
        ("hub:me/mine", None, "`hub:` is not known"),
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


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "holds no weights: expected open_clip_model.safetensors"),
        ({"a.pth": b"", "b.bin": b""}, r"several files of weights \(a.pth, b.bin\)"),
        ({"open_clip_config.json": b"{"}, "can't be read"),
        ({"open_clip_config.json": b"{}"}, "no `model_cfg`"),
    ],
)
def test_a_folder_that_open_clip_would_fill_with_random_or_any_weights_is_refused(tmp_path, files, message):
    shutil.copy(FOLDER / "open_clip_config.json", tmp_path)
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    for ask in (check_model, lambda name, tag: models.load.__wrapped__(name, tag, "cpu")):
        with pytest.raises(ModelError, match=message) as error:
            ask(f"local-dir:{tmp_path}", None)
        assert "\n" not in str(error.value)


def hub(monkeypatch, *files):
    """A hub whose every repository holds copies of so many of clip-tiny's files, and nothing else."""

    def download(repo_id, filename, **_options):
        if filename not in files:
            raise OSError(f"404: {filename} is not in {repo_id}\nsecond line")
        return str(FOLDER / filename)

    monkeypatch.setattr(open_clip.pretrained, "hf_hub_download", download)


def test_a_repository_is_loaded_with_its_weights(monkeypatch, tiny):
    hub(monkeypatch, "open_clip_config.json", "open_clip_model.safetensors")
    check_model("hf-hub:me/mine", None)
    loaded = models.load.__wrapped__("hf-hub:me/mine", None, "cpu")
    assert torch.equal(loaded.features(pixels()), tiny.features(pixels()))


@pytest.mark.parametrize("files", [(), ("open_clip_config.json",)], ids=["nothing", "no weights"])
def test_a_repository_without_weights_is_refused(monkeypatch, files):
    hub(monkeypatch, *files)
    with pytest.raises(
        ModelError, match=r"configuration and weights of me/mine are not on this machine.*404"
    ):
        check_model("hf-hub:me/mine", None)
    with pytest.raises(ModelError, match="can't be loaded") as error:
        models.load.__wrapped__("hf-hub:me/mine", None, "cpu")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "pretrained"),
    [("clip-tiny", "openai"), *product(["local-dir:/mine", "hf-hub:me/mine"], ["openai", "random"])],
)
def test_a_weight_tag_that_open_clip_would_ignore_is_refused(name, pretrained):
    with pytest.raises(ValueError, match=f"`pretrained: {pretrained}` would be ignored"):
        ModelConfig(name=name, pretrained=pretrained)


def test_weights_that_lack_a_tensor_or_have_another_are_refused(tmp_path):
    shutil.copytree(FOLDER, tmp_path, dirs_exist_ok=True)
    file = tmp_path / "open_clip_model.safetensors"
    whole = load_file(file)
    missing = {name: value for name, value in whole.items() if name != "visual.proj"}
    for tensors in (missing, whole | {"visual.more": torch.ones(1)}):
        save_file(tensors, file)
        with pytest.raises(ModelError, match=r"visual\.(proj|more)") as error:
            models.load.__wrapped__(f"local-dir:{tmp_path}", None, "cpu")
        assert "\n" not in str(error.value)


def exported(folder, **text):
    """clip-tiny, whose configuration says something else of its text tower."""
    shutil.copytree(FOLDER, folder, dirs_exist_ok=True)
    config = json.loads((folder / "open_clip_config.json").read_text())
    config["model_cfg"]["text_cfg"] |= text
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    return f"local-dir:{folder}"


def test_a_tokenizer_with_another_vocabulary_is_refused(tmp_path):
    name = exported(tmp_path, vocab_size=32000)
    file = tmp_path / "open_clip_model.safetensors"
    tensors = load_file(file)
    tensors["token_embedding.weight"] = tensors["token_embedding.weight"][:32000].contiguous()
    save_file(tensors, file)
    with pytest.raises(ModelError, match="knows 32000 tokens and open_clip's tokenizer has 49408"):
        models.load.__wrapped__(name, None, "cpu")


def test_a_folders_own_tokenizer_is_read_from_the_folder(monkeypatch, tmp_path):
    """Without a network: open_clip asks `transformers` for the folder, not for the name on the hub."""
    asked = []

    class AutoTokenizer:
        @staticmethod
        def from_pretrained(source, **_options):
            asked.append(source)
            return object()

    transformers = types.ModuleType("transformers")
    transformers.AutoTokenizer = AutoTokenizer
    monkeypatch.setitem(sys.modules, "transformers", transformers)
    models.load.__wrapped__(exported(tmp_path, hf_tokenizer_name="org/on-the-hub"), None, "cpu")
    assert asked == [tmp_path]
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ModelError, match=r"can't be loaded.*transformers"):
        models.load.__wrapped__(f"local-dir:{tmp_path}", None, "cpu")


# Random weights, and what is trained


def test_random_weights_are_the_same_in_every_process_and_no_download(monkeypatch):
    monkeypatch.setattr(open_clip.factory, "download_pretrained", no_download)
    monkeypatch.setattr(open_clip, "download_pretrained", no_download)
    check_model("RN50", "random")
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = models.load.__wrapped__("RN50", "random", "cpu")
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    second = models.load.__wrapped__("RN50", "random", "cpu")
    assert first.fingerprint() == second.fingerprint()
    assert not any(parameter.requires_grad for parameter in first.parameters())
    assert first.features(pixels(2, 32)).isfinite().all()


def test_a_blueprint_has_the_models_shapes_and_no_weights(tiny):
    drawn = models.blueprint("clip-tiny")
    shapes = {name: value.shape for name, value in tiny.clip.state_dict().items()}
    assert {name: value.shape for name, value in drawn.clip.state_dict().items()} == shapes
    assert all(value.is_meta for value in (*drawn.parameters(), *drawn.buffers()))
    assert drawn.image_size == tiny.image_size


def asking(clip):
    return {name for name, parameter in clip.named_parameters() if parameter.requires_grad}


@pytest.mark.parametrize("blocks", [1, 3, 4])
def test_the_last_blocks_are_those_that_open_clip_leaves_unlocked(tiny, blocks):
    """In its groups, where the projection is one of its own; the logit scale is trained with both towers."""
    copied = models.trainable_copy(tiny, text=True, blocks=min(blocks, 2))
    reference = copy.deepcopy(tiny.clip).requires_grad_(True)
    reference.lock_image_tower(unlocked_groups=min(blocks, 2) + 1)
    reference.lock_text_tower(unlocked_layers=min(blocks, 2) + 1)
    assert asking(copied.clip) == asking(reference)
    alone = models.trainable_copy(tiny, text=False, blocks=blocks)
    reference = copy.deepcopy(tiny.clip).requires_grad_(False)
    reference.lock_image_tower(unlocked_groups=blocks + 1)
    assert asking(alone.clip) == asking(reference)
    assert "visual.class_embedding" not in asking(alone.clip)


@pytest.mark.parametrize("name", ["ViT-B-16-SigLIP", "EVA02-B-16", "coca_ViT-B-32"])
def test_blocks_of_other_transformers_are_told_apart(name):
    """timm's towers, and one with an attention pool, which open_clip's own lock would leave frozen."""
    copied = models.trainable_copy(models.blueprint(name), text=False, blocks=2).clip
    trained = asking(copied)
    blocks = {re.search(r"blocks\.(\d+)\.", name)[1] for name in trained if "blocks." in name}
    assert blocks == {"10", "11"}
    followers = {name for name in trained if "blocks." not in name}
    assert followers
    assert not any(re.search("embed|conv1|ln_pre|norm_pre", name) for name in followers)
    pool = {
        n for n, _ in copied.named_parameters() if n.startswith(("visual.attn_pool", "visual.trunk.attn"))
    }
    assert pool <= trained


@pytest.mark.parametrize(
    ("name", "text", "blocks", "message"),
    [
        ("RN50", False, 1, "image tower has no transformer blocks"),
        ("convnext_base", False, 1, "image tower has no transformer blocks"),
        ("clip-tiny", False, 5, "image tower has 4 transformer blocks"),
        ("ViT-L-14", True, 13, "text tower has 12 transformer blocks"),
    ],
)
def test_a_tower_without_so_many_blocks_is_refused(name, text, blocks, message):
    with pytest.raises(ModelError, match=message) as error:
        models.trainable_copy(models.blueprint(name), text=text, blocks=blocks)
    assert "\n" not in str(error.value)


def test_blocks_are_checked_before_anything_starts():
    with pytest.raises(ModelError, match="has 4 transformer blocks"):
        check({"method": {"name": "tecoa"}, "model": {"blocks": 9}})
    check({"method": {"name": "tecoa"}, "model": {"blocks": 1, "towers": "both"}})


def test_a_text_tower_that_no_loss_is_about_is_not_to_be_trained():
    with pytest.raises(ValueError, match="fare's loss is of images alone"):
        TrialConfig.model_validate({"method": {"name": "fare"}, "model": {"towers": "both"}})


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
