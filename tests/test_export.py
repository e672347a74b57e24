"""Exported models: what open_clip loads is what was trained, and what is written of it is true."""

from __future__ import annotations

import ast
import io
import json
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import mlflow
import numpy as np
import open_clip
import pandas as pd
import pytest
import torch
import yaml
from click.testing import CliRunner
from open_clip.factory import HF_HUB_PREFIX
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image
from safetensors.torch import save_file

from sweeper.cli import main
from sweeper.errors import UserError
from sweeper.evaluation import find_point
from sweeper.export import exported
from sweeper.registry import register
from sweeper.tracking import Mirror
from sweeper.trial import STAGES
from tests.finished import finished_run
from trainables import checkpoints
from trainables import export as exporting
from trainables.config import ModelConfig, TrialConfig
from trainables.data import registry
from trainables.data.fit import Fit
from trainables.embedded import MODELS
from trainables.errors import ModelError
from trainables.evaluate import Evaluation
from trainables.finetune import fine_tuned
from trainables.licences import licence
from trainables.models import Classifier
from trainables.pixels import to_pixels
from trainables.training import Trainer

PROMPT = "This is a photo of a {}"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return finished_run(tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="module")
def folders(run):
    """Both finished trials, exported, whether they are Pareto members or not."""
    return {point.trial.id: folder for point, folder in exported(run, ["t000", "t001"])}


def trained(run, trial):
    return fine_tuned(ModelConfig(), run.path / "trials" / trial / "epoch-001.safetensors", "cpu")


def loaded(folder):
    return open_clip.create_model(f"local-dir:{folder}").eval().requires_grad_(False)


def images(size=28, count=5):
    return torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(1))


# The model


@pytest.mark.parametrize("trial", ["t000", "t001"])
def test_open_clip_loads_the_very_model(run, folders, trial):
    own, other = trained(run, trial), loaded(folders[trial])
    normalised = (images() - own.mean) / own.std
    tokens = open_clip.get_tokenizer(f"local-dir:{folders[trial]}")(["a photo of a bag", "sandal"])
    assert torch.equal(own.features(images()), other.encode_image(normalised))
    assert torch.equal(own.clip.encode_text(tokens), other.encode_text(tokens))
    assert torch.equal(own.scale, other.logit_scale.exp())
    original = fine_tuned(ModelConfig(), None, "cpu")
    assert not torch.equal(original.features(images()), own.features(images()))
    same_text = torch.equal(original.clip.encode_text(tokens), other.encode_text(tokens))
    assert same_text == (trial == "t000")  # CaRot trains the text tower too


def test_open_clips_own_preprocessing_of_files_gives_our_predictions(run, folders, tmp_path):
    """PNG files through open_clip's transform, model and tokenizer, as any user of the folder would."""
    for trial, folder in folders.items():
        clip, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{folder}")
        tokenizer = open_clip.get_tokenizer(f"local-dir:{folder}")
        records = Evaluation.load(run.path / "trials" / trial / "epoch-001.parquet").records
        for name in ("fashion-mnist-8k", "digits"):
            chosen = registry.load(name, "validation", Fit((28, 28))).sample(40)
            pixels = []
            for index, image in enumerate(chosen.pixels()):
                Image.fromarray(image).save(tmp_path / f"{index}.png")
                pixels.append(preprocess(Image.open(tmp_path / f"{index}.png")))
            with torch.no_grad():
                text = clip.eval().encode_text(
                    tokenizer([f"This is a photo of a {c}" for c in chosen.classes])
                )
                features = clip.encode_image(torch.stack(pixels))
                logits = torch.nn.functional.cosine_similarity(features[:, None], text[None], dim=-1)
            own = records[records["set"] == name]
            assert (own["index"].to_numpy() == chosen.numbers).all()
            assert (own["clean_prediction"].to_numpy() == logits.argmax(-1).numpy()).all()


def test_images_of_any_size_are_cut_as_open_clip_cuts_them():
    """To the pixel, so that image folders too give the predictions of open_clip's own preprocessing."""
    cut = image_transform_v2(PreprocessCfg(size=28), is_train=False).transforms[:-1]
    sizes = np.random.default_rng(0).integers(9, 120, size=(60, 2))
    for width, height in [*sizes.tolist(), (28, 57), (57, 28), (28, 28), (33, 28)]:
        noise = np.random.default_rng(width).integers(0, 256, size=(height, width, 3), dtype=np.uint8)
        image = Image.fromarray(noise)
        pixels = image
        for transform in cut:
            pixels = transform(pixels)
        own = to_pixels(np.array(Fit((28, 28))(image))[None], torch.device("cpu"))[0]
        assert torch.equal(own, pixels), (width, height)


def test_an_architecture_is_exported_as_its_weights_were_trained(tmp_path, monkeypatch):
    """As `ViT-B-32` with the tag `openai`: QuickGELU, though the architecture does not say so."""
    architecture = json.loads((MODELS["clip-tiny"] / "open_clip_config.json").read_text())["model_cfg"]
    del architecture["quick_gelu"]
    (tmp_path / "tiny-test.json").write_text(json.dumps(architecture))
    open_clip.add_model_config(tmp_path / "tiny-test.json")
    torch.manual_seed(0)
    weights = tmp_path / "weights.safetensors"
    save_file(open_clip.create_model("tiny-test").state_dict(), weights)
    tag = {"quick_gelu": True, "mean": (0.5, 0.5, 0.5), "std": (0.4, 0.5, 0.6), "interpolation": "bilinear"}
    for module in (open_clip, open_clip.factory):
        monkeypatch.setattr(module, "get_pretrained_cfg", lambda *_: dict(tag))
    monkeypatch.setattr(open_clip.factory, "download_pretrained", lambda *_, **__: str(weights))

    model, folder = one_trial(tmp_path, {"name": "tiny-test", "pretrained": "some-tag"})
    written = json.loads((folder / "open_clip_config.json").read_text())
    assert written["model_cfg"] == architecture | {"quick_gelu": True}
    assert written["preprocess_cfg"]["interpolation"] == "bilinear"
    monkeypatch.undo()
    clip, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{folder}")
    assert any(isinstance(module, open_clip.transformer.QuickGELU) for module in clip.modules())
    normalise = preprocess.transforms[-1]
    assert (normalise.mean, normalise.std) == ([0.5, 0.5, 0.5], [0.4, 0.5, 0.6])
    assert torch.equal(model.features(images()), loaded(folder).encode_image(normalise(images())))


def one_trial(tmp_path, model, name="trial"):
    """One epoch from `model`; the fine-tuned model and its export."""
    config = TrialConfig.model_validate(
        {"model": model, "method": {"name": "tecoa"}, "data": {"images": 8}, "batch_size": 8}
    )
    trainer = Trainer(config, seed=0, device="cpu")
    trainer.train_epoch()
    checkpoint, target = tmp_path / name, tmp_path / f"{name}-export"
    checkpoint.mkdir()
    weights = checkpoint / "epoch-001.safetensors"
    checkpoints.save(weights, checkpoints.weights(trainer.state()))
    of = {"training_set": {**trainer.images.about(), "class_names": list(trainer.images.classes)}}
    (checkpoint / "epoch-001.json").write_text(json.dumps(of))
    exporting.export(
        trial=config.model_dump(mode="json"), weights=str(weights), target=str(target), about=ABOUT
    )
    return fine_tuned(config.model, weights, "cpu"), target


NOTHING = {"protocol": "none", "metrics": None, "intervals": None}
ABOUT = {
    **{"method": "tecoa", "status": "completed", "pareto": False, "epoch": 1, "seed": 0, "drawn": {}},
    **{"config": {"epochs": 1}, "trial": "t000", "run": "none", "search_seed": 0, "versions": {}},
    "objectives": {"maximize": ["clean_accuracy"], "minimize": []},
    "data": {stage: [] for stage in STAGES},
    **dict.fromkeys(STAGES, NOTHING),
    "untrained": dict.fromkeys(STAGES, NOTHING),
}


def test_a_model_of_the_hub_and_an_export_are_exported_again(tmp_path, monkeypatch):
    def from_hub(identifier, filename="open_clip_model.safetensors", **_):
        assert identifier == "org/repo"
        return str(MODELS["clip-tiny"] / filename)

    for module in (exporting, open_clip.factory):
        monkeypatch.setattr(module, "download_pretrained_from_hf", from_hub)
    model, folder = one_trial(tmp_path, {"name": f"{HF_HUB_PREFIX}org/repo"}, "hub")
    assert torch.equal(model.text_features(model.tokens(["bag"])), text_of(folder))
    head = yaml.safe_load((folder / "README.md").read_text().split("---\n")[1])
    assert (head["license"], head["base_model"]) == ("unknown", "org/repo")

    model, again = one_trial(tmp_path, {"name": f"local-dir:{folder}"}, "again")
    assert torch.equal(model.text_features(model.tokens(["bag"])), text_of(again))
    assert not torch.equal(loaded(folder).encode_image(images()), loaded(again).encode_image(images()))


def text_of(folder):
    tokens = open_clip.get_tokenizer(f"local-dir:{folder}")(["bag"])
    return torch.nn.functional.normalize(loaded(folder).encode_text(tokens), dim=-1)


class Words:
    """Stands for a tokenizer of transformers, not installed here: a word's number is its place in a file."""

    def __init__(self, folder):
        self.words = (Path(folder) / "words.txt").read_text().split()

    @classmethod
    def from_pretrained(cls, folder, **_):
        return cls(folder)

    def save_pretrained(self, folder):
        (Path(folder) / "words.txt").write_text(" ".join(self.words))
        (Path(folder) / "tokenizer_config.json").write_text("{}")

    def __call__(self, texts, *, max_length, **_):
        numbers = [[self.words.index(word) for word in text.split() if word in self.words] for text in texts]
        rows = [(row + [0] * max_length)[:max_length] for row in numbers]
        return SimpleNamespace(input_ids=torch.tensor(rows))


def test_a_tokenizer_of_hugging_face_is_part_of_the_folder(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", SimpleNamespace(AutoTokenizer=Words))
    base = tmp_path / "base"
    shutil.copytree(MODELS["clip-tiny"], base)
    settings = json.loads((base / "open_clip_config.json").read_text())
    settings["model_cfg"]["text_cfg"]["hf_tokenizer_name"] = "some/where"
    (base / "open_clip_config.json").write_text(json.dumps(settings))
    (base / "words.txt").write_text("- This is a photo of bag")
    model, folder = one_trial(tmp_path, {"name": f"local-dir:{base}"})
    shutil.rmtree(base)
    tokens = open_clip.get_tokenizer(f"local-dir:{folder}")(["a photo of bag"])
    assert tokens[0, :5].tolist() == [3, 4, 5, 6, 0]
    assert torch.equal(tokens, model.tokens(["a photo of bag"]))


# The folder


def test_the_front_is_exported_with_its_numbers(run, tmp_path):
    arguments = ["export", str(run.path), "--to", str(tmp_path / "to"), "--json"]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 0, result.output
    content = run.pareto()
    members = [row for row in content["candidates"] if row["pareto"]]
    written = {each["id"]: each for each in json.loads(result.stdout)}
    assert set(written) == {trial["id"] for trial in members}
    assert sorted(f.name for f in (tmp_path / "to").iterdir()) == [trial["id"] for trial in members]
    for trial in members:
        folder = tmp_path / "to" / trial["id"]
        assert written[trial["id"]] == {"id": trial["id"], "folder": str(folder), "model": None}
        assert f"{trial['id']}: {folder}" in result.stderr
        origin = json.loads((folder / "sweep.json").read_text())
        assert origin["config"] == trial["config"]
        assert origin["classes"] == list(registry.load("fashion-mnist-8k", "test", Fit((28, 28))).classes)
        card = (folder / "README.md").read_text()
        for split in STAGES:
            assert origin[split]["metrics"] == trial[split]
            assert origin[split]["intervals"] == json.loads(json.dumps(trial["intervals"][split]))
            assert origin[split]["protocol"] == content[split]["text"]
            low, high = trial["intervals"][split]["robust_accuracy"]
            before = content["baseline"][split]["clean_accuracy"]
            assert (
                f"| robust_accuracy | {trial[split]['robust_accuracy']:.4f} [{low:.3f}, {high:.3f}]" in card
            )
            assert f"| {before:.4f} [" in card
            assert content[split]["text"] in card
        head = yaml.safe_load(card.split("---\n")[1])
        assert head["library_name"] == "open_clip"
        assert head["license"] == "unknown"  # of clip-tiny
        assert yaml.safe_load(card.split("```yaml\n")[1].split("```")[0]) == trial["config"]


def test_an_export_is_replaced_by_the_next_and_nothing_else_is(run, tmp_path):
    target = tmp_path / "t000@1"
    list(exported(run, ["t000"], tmp_path))
    before = {file.name: file.read_bytes() for file in target.iterdir()}
    (target / "stray.txt").touch()
    list(exported(run, ["t000"], tmp_path))
    assert {file.name: file.read_bytes() for file in target.iterdir()} == before
    assert [file.name for file in tmp_path.iterdir()] == ["t000@1"]
    (target / "sweep.json").unlink()
    with pytest.raises(UserError, match="no earlier export"):
        list(exported(run, ["t000"], tmp_path))
    assert len(list(target.iterdir())) == len(before) - 1


def test_a_folder_that_would_give_other_features_is_not_there(run, tmp_path, monkeypatch):
    def inexact(tensors, file):
        save_file(tensors | {"visual.proj": tensors["visual.proj"] * (1 + 1e-6)}, file)

    monkeypatch.setattr(exporting, "save_file", inexact)
    with pytest.raises(UserError, match="differs in image features") as error:
        list(exported(run, ["t000"], tmp_path))
    assert "\n" not in str(error.value)
    assert not (tmp_path / "t000@1").exists()


def test_what_can_not_be_written_to_is_one_line(run, tmp_path):
    file = tmp_path / "file"
    file.touch()
    commands = [
        ["export", run.path, "--to", file],
        ["evaluate", "clip-tiny", "--data", "digits", "--set", "images=10", "--to", file],
        ["run", "search_spaces/quickstart.yaml", "--runs", file],
    ]
    for command in commands:
        result = CliRunner().invoke(main, list(map(str, command)))
        assert (result.exit_code, result.output.count("\n")) == (2, 1)
        assert "Not a directory" in result.output


@pytest.mark.parametrize(
    ("trial", "message"), [("t002", "no trial 't002' with kept weights"), ("t99", "no trial 't99'")]
)
def test_what_can_not_be_exported_is_one_line_and_nothing_is_written(run, tmp_path, trial, message):
    arguments = ["export", str(run.path), "--trial", "t000", "--trial", trial, "--to", str(tmp_path / "to")]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 2
    assert message in result.output
    assert result.output.count("\n") == 1
    assert not (tmp_path / "to").exists()


@pytest.mark.parametrize(
    ("tag", "name", "expected"),
    [
        ("openai", "ViT-B-32", "mit"),
        ("laion2b_s34b_b79k", "ViT-B-32", "mit"),
        ("datacomp_xl_s13b_b90k", "ViT-B-32", "mit"),
        ("datacompdr", "MobileCLIP-S1", "unknown"),  # Apple's, though it begins as DataComp's
        ("metaclip_400m", "ViT-B-32", "cc-by-nc-4.0"),
        ("webli", "ViT-B-16-SigLIP", "apache-2.0"),
        ("dfn5b", "ViT-H-14", "other"),
        ("yfcc15m", "RN50", "unknown"),
        (None, "hf-hub:org/repo", "unknown"),
    ],
)
def test_licences_are_known_or_said_to_be_unknown(tag, name, expected):
    found = licence(ModelConfig(name=name, pretrained=tag))
    assert found.identifier == expected
    assert "https://huggingface.co/" in found.text


def test_the_licence_of_a_folder_is_that_of_its_card(tmp_path):
    (tmp_path / "README.md").write_text("---\nlicense: cc-by-4.0\n---\n# Model")
    assert licence(ModelConfig(name=f"local-dir:{tmp_path}")).identifier == "cc-by-4.0"
    (tmp_path / "README.md").write_text("# Model")
    assert licence(ModelConfig(name=f"local-dir:{tmp_path}")).identifier == "unknown"


def test_a_target_that_is_no_export_is_kept(tmp_path):
    (tmp_path / "mine").mkdir()
    trial = {"method": {"name": "tecoa"}}
    with pytest.raises(ModelError, match="no earlier export"):
        exporting.export(trial=trial, weights="", target=str(tmp_path / "mine"), about={})


# MLflow


def test_a_registered_model_classifies_as_ours_does(run, folders, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    Mirror(run).deliver()
    uris = [register(run, find_point(run, "t001"), folders["t001"], "robust") for _ in range(2)]
    assert uris == ["models:/robust/1", "models:/robust/2"]
    chosen = registry.load("digits", "test", Fit((28, 28))).sample(8)
    files = pd.DataFrame({"image": [png(image) for image in chosen.pixels()]})
    mlflow.set_tracking_uri(f"sqlite:///{run.path / 'mlflow.db'}")
    try:
        served = mlflow.pyfunc.load_model(uris[0])
        default = served.predict(files)
        named = served.predict(files, params={"classes": list(chosen.classes), "templates": ["a {c}."]})
    finally:
        mlflow.set_tracking_uri(None)
    assert served.metadata.run_id == Mirror(run).ids["t001"]
    fashion = registry.load("fashion-mnist-8k", "test", Fit((28, 28))).classes
    model = trained(run, "t001")
    for table, template, classes in ((default, PROMPT, fashion), (named, "a {}.", chosen.classes)):
        assert list(table.columns) == list(classes)
        classifier = Classifier(model, model.encode_classes(classes, [template]))
        expected = classifier(to_pixels(chosen.pixels(), model.device)).softmax(-1)
        np.testing.assert_allclose(table.to_numpy(), expected.numpy(), rtol=1e-4, atol=1e-6)


def test_the_served_code_needs_no_clip_sweeper():
    tree = ast.parse(exporting.SERVING.read_text())
    imported = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    imported |= {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    standard = {"__future__", "io", "typing"}
    assert imported - standard == {"PIL", "mlflow", "open_clip", "pandas", "torch"}


def png(image):
    file = io.BytesIO()
    Image.fromarray(image).save(file, format="png")
    return file.getvalue()


def test_a_registry_that_is_away_is_one_line(run, folders, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(UserError, match=r"can't be registered with MLflow at http://127\.0\.0\.1:9") as error:
        register(run, find_point(run, "t000"), folders["t000"], "robust")
    assert "\n" not in str(error.value)
