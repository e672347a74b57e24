"""The trainable of a sweep: one trial, epoch by epoch, and the evaluation of a finished trial.

A trial's folder is its memory. Every epoch writes, in this order, `epoch-NNN.parquet` (per-image
records), `epoch-NNN.json` (metrics), `epoch-NNN.safetensors` (the trained weights) and
`checkpoint.safetensors`; the latter commits the epoch, and the one before it stays, for the case that it is
damaged. Which epochs' weights are worth keeping is for
the sweeper to say, which knows what trials are judged by: it takes away the others.
A trial that starts in a folder with a checkpoint goes on from it, whatever ended it before: a lost
worker, a killed driver, Ctrl-C. As an epoch depends on the seed and its number alone, an epoch that
has to be repeated gives the same numbers.
"""

from __future__ import annotations

import hashlib
import json
import math
import shutil
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from trainables import checkpoints, classifiers, memory, models
from trainables.attacks.sanity import check
from trainables.config import (
    EvaluationConfig,
    ModelConfig,
    TrialConfig,
    measured_sets,
    trial_metrics,
)
from trainables.data import registry
from trainables.data.cache import whole
from trainables.data.config import DataConfig
from trainables.data.role import IN_DISTRIBUTION
from trainables.errors import EXPECTED, DataError
from trainables.evaluate import Evaluation, calibrate, classifier_of, evaluate, precision
from trainables.once import NOWHERE, Kind, Store
from trainables.pixels import batch
from trainables.sources import TIMM
from trainables.training import Trainer, default_device
from trainables.usage import Usage

if TYPE_CHECKING:
    from collections.abc import Sequence

    from trainables.classifiers import Measurable
    from trainables.data.config import DataSet
    from trainables.data.images import ImageSet, Split
    from trainables.data.role import Role

Report = dict[str, Any]

SANITY_IMAGES = 100

BASELINE = Kind(
    "baseline",
    write=lambda evaluation, folder: evaluation.save(folder / "records.parquet"),
    read=lambda folder: Evaluation.load(folder / "records.parquet"),
)


class Finetune:
    """One epoch of adversarial fine-tuning per step, evaluated clean and attacked after each.

    config: `trial` and `evaluation` (configurations as plain dictionaries), `seed`, `folder`, `threads` (CPU
    threads this trial may use), `cpus`, `gpus` and `concurrent` (its share of the machine, and how many
    trials have one), `cache` (folder of what is computed once for all trials; without one it is computed by
    each), `until` (the epoch to end after, the trial's last by default: a shorter training with the same
    learning rates is the beginning of the whole one).
    """

    def __init__(self, config: dict[str, Any]) -> None:
        torch.set_num_threads(config["threads"])
        self.folder = Path(config["folder"])
        self.folder.mkdir(parents=True, exist_ok=True)
        self.trial = TrialConfig.model_validate(config["trial"])
        self.evaluation = EvaluationConfig.model_validate(config["evaluation"])
        self.until: int = config.get("until") or self.trial.epochs
        self.refusal: str | None = None
        try:
            self._prepare(config)
            self.load(config["folder"])
        except EXPECTED as error:
            self.refusal = str(error)

    def _prepare(self, config: dict[str, Any]) -> None:
        """Model and images, with as large a micro-batch as the trial's share of the memory allows."""
        micro_batch = memory.claim(
            self.trial,
            default_device(),
            cpus=config["cpus"],
            gpus=config["gpus"],
            concurrent=config.get("concurrent"),
        )
        store = store_at(config.get("cache"))
        self.trainer = Trainer(self.trial, config["seed"], store=store, micro_batch=micro_batch)
        model, data, whole = self.trainer.pretrained, self.trial.data, self.evaluation
        self.sets = evaluation_sets(data, whole, "validation", model)
        self.between = self.sets
        if whole.suite_epochs:
            self.between = evaluation_sets(data, whole.without_suites, "validation", model)

    def step(self) -> Report:
        if self.refusal is not None:
            return self._failure(self.refusal, epoch=0)
        if self.trainer.epoch >= self.until:  # restarted after its last epoch was committed
            return self._report(json.loads(epoch_file(self.folder, self.trainer.epoch).read_text()))
        usage = Usage(self.trainer.device)
        try:
            with usage:
                summary = self.trainer.train_epoch()
                started = time.perf_counter()
                whole = self._measures_suites(summary.epoch)
                sets = self.sets if whole else self.between
                result = evaluate(self.trainer.model, sets, self.evaluation)
        except EXPECTED as error:
            return self._failure(str(error), self.trainer.epoch)
        except torch.OutOfMemoryError as error:  # where no smaller micro-batch would help
            reason = str(error).splitlines()[0]
            return self._failure(
                f"out of memory beside the gradients ({reason}); see `resources`", self.trainer.epoch
            )
        epoch: Report = {
            "epoch": summary.epoch,
            "split": "validation",
            **result.report(),
            "sets": [images.about() for images in sets],
            "training_set": {
                **self.trainer.images.about(),
                "class_names": list(self.trainer.images.classes),
            },
            "training": {"loss": summary.loss, **{f"loss.{k}": v for k, v in summary.parts.items()}},
            "images_per_second": summary.images_per_second,
            "training_seconds": summary.seconds,
            "micro_batch": summary.micro_batch,
            "out_of_memory": summary.out_of_memory,
            "evaluation_seconds": time.perf_counter() - started,
            "system": usage.means(),
        }
        file, state = epoch_file(self.folder, summary.epoch), self.trainer.state()
        write_results(file, epoch, result)
        if whole:
            checkpoints.save(file.with_suffix(".safetensors"), checkpoints.weights(state))
        checkpoints.advance(self.folder, state)
        return self._report(epoch)

    def _measures_suites(self, epoch: int) -> bool:
        """Whether all is measured after this epoch. Only then is it known what the model is worth, and are
        its weights kept."""
        chosen = self.evaluation.suite_epochs
        return not chosen or epoch in chosen or epoch >= self.until

    def _report(self, epoch: Report) -> Report:
        return {
            **epoch["metrics"],
            "epoch": epoch["epoch"],
            "images_per_second": epoch["images_per_second"],
            "failed": None,
            "done": epoch["epoch"] >= self.until,
        }

    def _failure(self, reason: str, epoch: int) -> Report:
        """The last report of a trial that can't go on; it carries every key all the same."""
        return {
            **dict.fromkeys(trial_metrics(self.trial, self.evaluation), math.nan),
            "epoch": epoch,
            "images_per_second": math.nan,
            "failed": reason,
            "done": True,
        }

    def save(self, folder: str) -> None:
        """Everything `load` needs to go on from here, as one checkpoint in `folder`."""
        checkpoints.save(Path(folder) / checkpoints.FILE, self.trainer.state())

    def load(self, folder: str) -> None:
        """Goes on from the newest whole checkpoint in `folder`, if there is one. Raises DataError if
        it was trained on other images."""
        checkpoint = checkpoints.latest(Path(folder))
        if checkpoint is not None:
            self.trainer.load_state(checkpoint)
            check_images(epoch_file(self.folder, self.trainer.epoch), self.trainer.images.digest)


def epoch_file(folder: Path, epoch: int) -> Path:
    return folder / f"epoch-{epoch:03d}.json"


def training_set(file: Path) -> dict[str, Any]:
    """What is known of the images that a trial was trained on. file: any of those that an epoch wrote."""
    known: dict[str, Any] = json.loads(file.with_suffix(".json").read_text())["training_set"]
    return known


def check_images(file: Path, digest: str) -> None:
    """Raises DataError unless a trial's training images are still those of an epoch. Splits that are cut
    change with a single image: what is a test image now may have been trained on. file: as above."""
    known = training_set(file)
    if known.get("digest", digest) != digest:  # earlier versions did not record it
        raise DataError(
            f"the training images of {known['set']!r} are not those that this trial was trained on: some "
            "were added, taken away or renamed, and what is a test image now may have been trained on; "
            "restore them, or start a new sweep"
        )


def check_unchanged(
    *, data: dict[str, Any], evaluation: dict[str, Any], sets: Sequence[dict[str, Any]]
) -> None:
    """Raises DataError unless the validation images of a sweep are still those that its untrained model was
    measured on. sets: what was recorded of them then."""
    config, ruler = DataConfig.model_validate(data), EvaluationConfig.model_validate(evaluation)
    digests = {of["set"]: of.get("digest") for of in sets}
    for name, (each, _) in measured_sets(config, ruler).items():
        known = digests.get(name)
        if known is not None and registry.chosen(each, "validation", ruler.images).digest() != known:
            raise DataError(
                f"data set {name!r} has changed since the sweep was started: images were added, "
                "taken away or renamed, and its splits with them; restore it, or start a new sweep"
            )


def write_results(file: Path, result: Report, evaluation: Evaluation) -> None:
    """Records beside `file` as Parquet, then `file` itself, each complete or not there."""
    evaluation.save(file.with_suffix(".parquet"))
    with whole(file) as written:
        written.write_text(json.dumps(result, indent=1, allow_nan=False))


def evaluation_sets(
    data: DataConfig, evaluation: EvaluationConfig, split: Split, model: Measurable
) -> list[ImageSet]:
    measured = measured_sets(data, evaluation).values()
    return [evaluation_set(asked, data, evaluation, split, model) for asked in measured]


def evaluation_set(
    asked: tuple[str | DataSet, Role],
    data: DataConfig,
    evaluation: EvaluationConfig,
    split: Split,
    model: Measurable,
) -> ImageSet:
    config, role = asked
    images = registry.load(
        config,
        split,
        model.fit,
        evaluation.attack.at,
        count=evaluation.images,
        prompt=data.prompt,
        decode=data.decode,
    )
    return replace(images, role=role)


def store_at(cache: str | None) -> Store:
    return NOWHERE if cache is None else Store(Path(cache))


def fine_tuned(
    config: ModelConfig, weights: Path | None, device: str | None = None, store: Store = NOWHERE
) -> Measurable:
    """The model with the trained weights of a file; the pre-trained one without.

    The file alone says which weights were trained: method and optimiser are of no concern here.
    """
    on = device or default_device()
    if config.name.startswith(TIMM):
        return classifiers.load(config.name, config.pretrained, on)
    pretrained = models.load(config.name, config.pretrained, on)
    pretrained.keep_class_texts(store)
    if weights is None:
        return pretrained
    tensors = checkpoints.load(weights)
    if tensors is None:
        raise FileNotFoundError(f"no readable weights in {weights}: the file is missing or damaged")
    trained = {k.removeprefix(checkpoints.MODEL): v for k, v in checkpoints.weights(tensors).items()}
    text = not all(name.startswith("visual.") for name in trained)
    model = models.trainable_copy(pretrained, text=text)
    model.clip.load_state_dict(trained, strict=False)
    return model.eval().requires_grad_(False)


def measure(
    *,
    model: dict[str, Any],
    data: dict[str, Any],
    evaluation: dict[str, Any],
    split: Split,
    target: str,
    weights: str | None,
    threads: int,
    cache: str | None = None,
    parts: str | None = None,
) -> None:
    """Evaluates the model with the weights that an epoch of a trial wrote, or the pre-trained one if
    `weights` is None, on the sets of `data`, and writes `target` (JSON) with its records beside it; under
    `measurement` it says what was measured, and how. Does nothing where `target` is there already.

    cache: folder in which the pre-trained model's evaluations are kept; see `Finetune`.
    parts: folder in which what is measured is kept until all is, to go on from there after an interruption;
    removed in the end.
    """
    file = Path(target)
    if file.exists():
        return
    torch.set_num_threads(threads)
    file.parent.mkdir(parents=True, exist_ok=True)
    config, ruler = DataConfig.model_validate(data), EvaluationConfig.model_validate(evaluation)
    store, trained = store_at(cache), None if weights is None else Path(weights)
    clip = fine_tuned(ModelConfig.model_validate(model), trained, store=store)
    if trained is not None:
        check_images(trained, registry.chosen(config.train, "train", config.images).digest())
    sets = evaluation_sets(config, ruler, split, clip)
    own = config.evaluated[0]
    held_out = (
        None
        if split == "validation"
        else evaluation_set((own, IN_DISTRIBUTION), config, ruler, "validation", clip)
    )

    def evaluated() -> Evaluation:
        temperature = None if held_out is None else calibrate(clip, held_out, ruler)
        return evaluate(clip, sets, ruler, temperature=temperature, store=store_at(parts))

    if trained is None:
        result = store.get(BASELINE, baseline_key(clip, sets, held_out, ruler), evaluated)
    else:
        result = evaluated()
    about = [images.about() for images in sets]
    measured = {"model": model, "evaluation": evaluation, "weights": weights_name(trained)}
    write_results(file, {"split": split, "measurement": measured, **result.report(), "sets": about}, result)
    if parts is not None:
        shutil.rmtree(parts, ignore_errors=True)


def weights_name(file: Path | None) -> str | None:
    """Of a trial's weights, wherever its run lies: as t003/epoch-005.safetensors."""
    return None if file is None else f"{file.parent.name}/{file.name}"


def baseline_key(
    model: Measurable, sets: list[ImageSet], held_out: ImageSet | None, ruler: EvaluationConfig
) -> dict[str, Any]:
    """All that the pre-trained model's evaluation depends on. held_out: what its temperature is fitted on."""

    def identity(images: ImageSet) -> list[Any]:
        numbers = hashlib.sha256(images.numbers.tobytes()).hexdigest()  # which attacks start from
        return [images.fingerprint(), numbers, list(images.templates)]

    return {
        "model": model.fingerprint(),
        "device": model.device.type,
        "sets": [identity(images) for images in sets],
        "held_out": None if held_out is None else identity(held_out),
        "evaluation": ruler.model_dump(mode="json"),
    }


def sanity(
    *,
    model: dict[str, Any],
    data: dict[str, Any],
    evaluation: dict[str, Any],
    split: Split,
    weights: str | None,
    threads: int,
) -> list[tuple[str, bool | None, str]]:
    """Can the robustness of a model be believed? Name, verdict and numbers of each check of
    `attacks.sanity`, on a sample of the first set."""
    torch.set_num_threads(threads)
    config, ruler = DataConfig.model_validate(data), EvaluationConfig.model_validate(evaluation)
    clip = fine_tuned(ModelConfig.model_validate(model), None if weights is None else Path(weights))
    images = evaluation_set((config.evaluated[0], IN_DISTRIBUTION), config, ruler, split, clip).sample(
        min(SANITY_IMAGES, ruler.images or SANITY_IMAGES)
    )
    with precision(clip, ruler):
        pixels, labels = batch(images, slice(None), clip.device)
        findings = check(
            classifier_of(clip, images),
            pixels,
            labels,
            epsilon=ruler.attack.epsilon,
            norm=ruler.attack.norm,
            seed=ruler.seed,
        )
    return [(finding.name, finding.passed, finding.detail) for finding in findings]
