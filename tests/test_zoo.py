"""Models as they are: the zoo's sweep file, a small zoo from start to report, and timm's classifiers."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import open_clip
import pytest
import timm
import torch
from PIL import Image

from sweeper import Run, spec, tree
from sweeper.runner import preflight
from tests import alone
from tests.command import called, sweeper
from trainables import classifiers, models, outputs, zoo
from trainables.config import EvaluationConfig, final_evaluation, trial_metrics
from trainables.data.sets.imagenet import class_names, wordnet_ids
from trainables.errors import ModelError
from trainables.metrics.names import UNDEFINED_AT_TIMES
from trainables.sources import check_source
from trainables.zoo_config import ZooConfig, source_of

if TYPE_CHECKING:
    from collections.abc import Iterator

RULER = """
  attack: {epsilon: 0}
  images: 60
  suites: [{name: shifts, altered: [darker, fog], severities: [2]}, {name: outside, ood: [digits]}]"""
ZOO = """\
name: small-zoo
trainable: evaluate
trial:
  data: {train: fashion-mnist-8k}
  model: !grid
    - {name: clip-tiny}
    - {name: clip-tiny, pretrained: random}
    - {name: ViT-B-32, pretrained: openai}
    - {name: "timm:test_resnet", pretrained: random}
evaluation: RULER
final: RULER
pareto: {maximize: [clean_accuracy, outside.mcm_ood_auroc], minimize: [clean_scaled_ece]}
search: {trials: 4, sampler: grid}
tracking: {mlflow: false}
""".replace("RULER", RULER)
GONE = "no weights here"


def without_weights(*_: object, **__: object) -> None:
    raise OSError(f"{GONE}\nand a second line")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    """A zoo in which one model's weights can't be had, and another knows other classes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(open_clip.factory, "download_pretrained", without_weights)
        sweep = spec.from_text(ZOO, "zoo.yaml")
        preflight_alone(sweep, patch)
        about = {"seed": 0, "directory": "/", "versions": {"torch": "2"}}
        yield alone.drive(Run.create(tmp_path_factory.mktemp("zoo"), sweep, about))


def preflight_alone(sweep: spec.SweepSpec, patch: pytest.MonkeyPatch) -> None:
    patch.setattr("sweeper.runner.Cluster.check", staticmethod(lambda _: None))
    preflight(sweep)


def test_a_model_that_can_not_be_measured_fails_alone(run: Run) -> None:
    found = {trial.drawn["model"]: trial for trial in run.trials()}
    assert [trial.status for trial in found.values()] == ["completed", "completed", "failed", "failed"]
    gone, other = found["ViT-B-32/openai"], found["timm:test_resnet/random"]
    assert GONE in (gone.reason or "")
    assert "knows ImageNet's classes alone" in (other.reason or "")
    assert all("\n" not in (trial.reason or "") for trial in found.values())
    assert [trial.method for trial in found.values()] == [
        "embedded",
        "random weights",
        "openai",
        "random weights",
    ]


def test_reports_what_it_promised_and_nothing_attacked(run: Run) -> None:
    trial = run.trials()[0]
    config = ZooConfig.model_validate(trial.config)
    expected = trial_metrics(config, EvaluationConfig.model_validate(run.spec.evaluation))
    reported = trial.metrics or {}
    assert {name for name in reported if not name.endswith(tuple(UNDEFINED_AT_TIMES))} == set(expected)
    assert all(math.isfinite(value) for value in reported.values())
    assert not [name for name in reported if "robust" in name or "zero_gradients" in name]
    assert run.spec.metrics == expected


def test_the_first_model_is_the_baseline_and_measured_once(run: Run) -> None:
    assert run.baseline() == run.trials()[0].metrics
    assert not list(run.path.rglob("parts")) + list(run.path.rglob("*.parts"))


def test_the_final_stage_attacks_nothing_either(run: Run) -> None:
    content = run.pareto()
    assert "clean alone" in content["final"]["text"]
    for row in content["candidates"]:
        assert row["fall"] is None
        assert row["final"] == row["validation"]
    assert content["baseline"]["test"] is not None
    own = final_evaluation({"attack": {"epsilon": 0}, "images": 60})
    assert own["further_attacks"] == []
    assert own["images"] is None
    assert final_evaluation({})["further_attacks"]


def test_every_verb_takes_a_zoo(run: Run, tmp_path: Path) -> None:
    assert "4 of 4 trials (2 completed, 2 failed)" in called("status", run.path).stdout
    table = called("pareto", run.path).stdout
    assert "clip-tiny" in table
    assert "robust" not in table.split("search:")[0]
    written = json.loads(called("report", run.path, "--json").stdout)
    assert Path(written["page"]).stat().st_size > 50_000
    called("report", run.path, "--figure", "pairs", "--format", "png", "--to", tmp_path / "pairs.png")
    assert (tmp_path / "pairs.png").stat().st_size > 10_000
    measured = json.loads(called("evaluate", "t001", run.path, "--set", "images=30", "--json").stdout)
    assert measured["metrics"]["clean_accuracy"] >= 0


def test_a_clip_is_exported_as_it_is(run: Run, tmp_path: Path) -> None:
    called("export", run.path, "--trial", "t001", "--to", tmp_path)
    folder = tmp_path / "t001@1"
    exported = models.load(f"local-dir:{folder}", None, "cpu")
    own = models.load("clip-tiny", "random", "cpu")
    pixels = torch.rand(2, 3, 28, 28)
    assert torch.equal(exported.features(pixels), own.features(pixels))
    card = (folder / "README.md").read_text()
    assert "A CLIP as it is" in card
    assert "fine-tuned" not in card
    assert json.loads((folder / "sweep.json").read_text())["classes"][0] == "t-shirt"


def test_memory_is_planned_by_weights() -> None:
    from trainables.zoo_memory import plan

    trials = [{"model": {"name": name}} for name in ("clip-tiny", "timm:test_resnet", "no-such-model")]
    first, unknown, fits = plan(trials, cpus=1, gpus=0)
    assert first.startswith("weights of 2 architectures, the largest: clip-tiny")
    assert unknown == "  not told without a download: no-such-model"
    assert "all take less than half" in fits


def test_an_interrupted_model_goes_on_with_the_part_that_it_was_at(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outputs, "PART", 25)
    measure, measured = outputs.Measuring.outputs, list[tuple[str, int]]()

    def counted(self: outputs.Measuring) -> outputs.Outputs:
        if len(measured) == 5:
            measured.append(("interrupted", 0))
            raise KeyboardInterrupt
        measured.append((self.images.name, int(self.images.numbers[0])))
        return measure(self)

    monkeypatch.setattr(outputs.Measuring, "outputs", counted)
    config = {"trial": run.trials()[0].config, "evaluation": run.spec.evaluation, "threads": 1}
    with pytest.raises(KeyboardInterrupt):
        zoo.Zoo({**config, "folder": str(tmp_path)}).step()
    assert len(list((tmp_path / "parts").glob("*/*/manifest.json"))) == 5
    report = zoo.Zoo({**config, "folder": str(tmp_path)}).step()
    measured.remove(("interrupted", 0))
    assert len(set(measured)) == len(measured) == 3 * 4  # parts of 60 images of four sets, each once
    assert not (tmp_path / "parts").exists()
    whole = run.trials()[0].metrics or {}
    assert {name: report[name] for name in whole} == pytest.approx(whole, abs=1e-6)
    again = zoo.Zoo({**config, "folder": str(tmp_path)}).step()
    assert again == report
    assert len(measured) == 12


# the sweep file


def models_of(sweep: spec.SweepSpec) -> list[tuple[str, str | None]]:
    options = sweep.space.items["model"].options  # type: ignore[attr-defined]
    plain = [tree.plain(option) for option in options]
    return [(str(each["name"]), each.get("pretrained")) for each in plain]


@pytest.fixture(scope="module")
def zoo_file() -> Path:
    return Path(__file__).parent.parent / "search_spaces" / "clip_zoo.yaml"


def test_the_zoo_has_all_that_open_clip_has(zoo_file: Path) -> None:
    sweep = spec.load(zoo_file)
    found = models_of(sweep)
    wanted = [each for each in open_clip.list_pretrained() if not each[0].endswith("-quickgelu")]
    missing = [f"- {{name: {name}, pretrained: {tag}}}" for name, tag in wanted if (name, tag) not in found]
    assert not missing, "add to search_spaces/clip_zoo.yaml:\n" + "\n".join(missing)
    for name, tag in found:
        check_source(name, tag)
    classifying = [name for name, _ in found if name.startswith("timm:")]
    assert all(timm.get_pretrained_cfg(name[5:]).num_classes == 1000 for name in classifying)
    assert sweep.file.search.trials == len(found) == len(set(found))
    assert "ood.mcm_ood_auroc" in sweep.metrics
    assert sweep.final["further_attacks"] == []


def test_what_is_left_out_has_the_weights_of_what_is_there() -> None:
    known = open_clip.list_pretrained()
    for name, tag in known:
        if name.endswith("-quickgelu"):
            plain = name.removesuffix("-quickgelu")
            assert open_clip.get_pretrained_cfg(plain, tag) == open_clip.get_pretrained_cfg(name, tag)


def test_ten_small_models_can_be_measured_here(zoo_file: Path) -> None:
    sweep = spec.load(zoo_file, "embedded")
    assert len(set(models_of(sweep))) == sweep.file.search.trials == 10
    assert "embedded-ood.mcm_ood_auroc" in sweep.metrics


@pytest.mark.slow
def test_ten_small_models_are_measured(zoo_file: Path, tmp_path: Path) -> None:
    sweeper("run", zoo_file, "--profile", "embedded", "--runs", tmp_path, patience=3600)
    done = Run.find(None, tmp_path)
    assert [trial.status for trial in done.trials()] == ["completed"] * 10


@pytest.mark.parametrize(
    ("name", "pretrained", "source"),
    [
        ("ViT-B-32", "openai", "openai"),
        ("ViT-L-14", "commonpool_xl_laion_s13b_b90k", "commonpool"),
        ("coca_ViT-B-32", "mscoco_finetuned_laion2b_s13b_b90k", "laion2b"),
        ("convnext_base_w", "laion_aesthetic_s13b_b82k", "laion aesthetic"),
        ("PE-Core-B-16", "meta", "meta"),
        ("ViT-H-14", "metaclip_fullcc", "metaclip"),
        ("ViT-B-32", "random-3", "random weights"),
        ("clip-tiny", None, "embedded"),
        ("timm:vit_base_patch16_224.augreg_in21k_ft_in1k", None, "ImageNet-21k"),
        ("timm:resnet50.a1_in1k", None, "ImageNet"),
    ],
)
def test_the_source_of_a_model(name: str, pretrained: str | None, source: str) -> None:
    assert source_of(name, pretrained) == source


def test_every_tag_of_open_clip_names_a_source() -> None:
    assert not [each for each in open_clip.list_pretrained() if source_of(*each) == "other"]


def test_random_weights_have_seeds() -> None:
    first, other, again = (models.random_clip("clip-tiny", seed).visual.proj for seed in (0, 1, 0))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    with pytest.raises(ValueError, match="weights of its own"):
        ZooConfig.model_validate({"model": {"name": "clip-tiny", "pretrained": "random-x"}})


# classifiers of timm


@pytest.mark.parametrize("name", ["test_resnet", "test_vit", "test_efficientnet"])
@pytest.mark.parametrize("size", [(160, 160), (200, 240), (90, 131)])
def test_a_classifier_gives_what_timm_gives(name: str, size: tuple[int, int]) -> None:
    model = classifiers.load.__wrapped__(f"timm:{name}", "random", "cpu")
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8))
    settings = timm.data.resolve_model_data_config(model.net) | {"crop_pct": 1.0, "crop_mode": "center"}
    with torch.no_grad():
        theirs = model.net(timm.data.create_transform(**settings)(image)[None])
        pixels = torch.from_numpy(np.array(model.fit(image))).permute(2, 0, 1)[None] / 255
        ours = model.logits(pixels)
        every = model.classifier(open_clip.IMAGENET_CLASSNAMES, [])(pixels)
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(every.softmax(-1), theirs.softmax(-1), rtol=1e-4, atol=1e-7)


def test_random_classifiers_are_the_same_in_every_process() -> None:
    load = classifiers.load.__wrapped__
    first, again, other = (
        load("timm:test_vit", tag, "cpu").fingerprint() for tag in ("random", "random-0", "random-1")
    )
    assert first == again != other


@pytest.mark.parametrize("name", ["imagenet_a", "imagenet_r"])
def test_a_subset_of_imagenet_is_classified_by_its_columns(name: str) -> None:
    """One of ImageNet-R's classes has a name that another class of ImageNet has, too."""
    file = Path(timm.data.__file__).parent / "_info" / f"{name}_synsets.txt"
    wnids = tuple(sorted(file.read_text().split()))
    known = wordnet_ids()
    places = [known.index(wnid) for wnid in wnids]
    assert classifiers.columns_of(class_names(wnids)) == places
    model = classifiers.load("timm:test_resnet", "random", "cpu")
    pixels = torch.rand(2, 3, 160, 160, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        found = model.classifier(class_names(wnids), [])(pixels)
        expected = model.logits(pixels)[:, places]
    torch.testing.assert_close(found.softmax(-1), expected.softmax(-1), rtol=1e-4, atol=1e-7)


def test_other_classes_are_refused() -> None:
    with pytest.raises(ModelError, match="'a cat' is none of them"):
        classifiers.columns_of(("tench", "a cat"))
    with pytest.raises(ModelError, match="two classes called 'missile'"):
        classifiers.columns_of(("tench", "missile"))
    with pytest.raises(ModelError, match="timm knows no model 'resnet_50'"):
        classifiers.load("timm:resnet_50", None, "cpu")
    assert classifiers.columns_of(("goldfish", "tench")) == [1, 0]
