"""The trainable of a sweep: one trial, epoch by epoch, and the evaluation of a finished trial.

A trial's folder is its memory. Every epoch writes, in this order, `epoch-NNN.parquet` (per-image
records), `epoch-NNN.json` (metrics) and `checkpoint.safetensors`; the checkpoint commits the epoch.
A trial that starts in a folder with a checkpoint goes on from it, whatever ended it before: a lost
worker, a killed driver, Ctrl-C. As an epoch depends on the seed and its number alone, an epoch that
has to be repeated gives the same numbers.
"""

from __future__ import annotations

import json
import math
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from trainables import checkpoints, memory, models
from trainables.attacks.sanity import check
from trainables.config import EvaluationConfig, TrialConfig, trial_metrics
from trainables.data import registry
from trainables.errors import EXPECTED
from trainables.evaluate import Evaluation, calibrate, classifier_of, evaluate, precision
from trainables.pixels import to_device, to_pixels
from trainables.training import Trainer, default_device

if TYPE_CHECKING:
    from trainables.data.images import ImageSet, Split
    from trainables.models import PixelClip

Report = dict[str, Any]

SANITY_IMAGES = 100


class Finetune:
    """One epoch of adversarial fine-tuning per step, evaluated clean and attacked after each.

    config: `trial` and `evaluation` (configurations as plain dictionaries), `seed`, `folder`,
    `threads` (CPU threads this trial may use), `cpus` and `gpus` (its share of the machine's).
    """

    def __init__(self, config: dict[str, Any]) -> None:
        torch.set_num_threads(config["threads"])
        self.folder = Path(config["folder"])
        self.folder.mkdir(parents=True, exist_ok=True)
        self.trial = TrialConfig.model_validate(config["trial"])
        self.evaluation = EvaluationConfig.model_validate(config["evaluation"])
        self.refusal: str | None = None
        try:
            micro_batch = memory.claim(self.trial, default_device(), cpus=config["cpus"], gpus=config["gpus"])
            self.trainer = Trainer(self.trial, config["seed"], micro_batch=micro_batch)
            self.sets = evaluation_sets(self.trial, self.evaluation, "validation", self.trainer.pretrained)
        except EXPECTED as error:
            self.refusal = str(error)
            return
        self.load(config["folder"])

    def step(self) -> Report:
        if self.refusal is not None:
            return self._failure(self.refusal, epoch=0)
        if self.trainer.epoch >= self.trial.epochs:  # restarted after its last epoch was committed
            return self._report(json.loads(epoch_file(self.folder, self.trainer.epoch).read_text()))
        try:
            summary = self.trainer.train_epoch()
            started = time.perf_counter()
            result = evaluate(self.trainer.model, self.sets, self.trial.data.prompt, self.evaluation)
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
            "training": {"loss": summary.loss, **{f"loss.{k}": v for k, v in summary.parts.items()}},
            "images_per_second": summary.images_per_second,
            "training_seconds": summary.seconds,
            "micro_batch": summary.micro_batch,
            "out_of_memory": summary.out_of_memory,
            "evaluation_seconds": time.perf_counter() - started,
        }
        write_results(epoch_file(self.folder, summary.epoch), epoch, result)
        self.save(str(self.folder))
        return self._report(epoch)

    def _report(self, epoch: Report) -> Report:
        return {
            **epoch["metrics"],
            "epoch": epoch["epoch"],
            "images_per_second": epoch["images_per_second"],
            "failed": None,
            "done": epoch["epoch"] >= self.trial.epochs,
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
        checkpoints.save(Path(folder), self.trainer.state())

    def load(self, folder: str) -> None:
        """Goes on from the checkpoint that `save` wrote to `folder`, if it can be read."""
        checkpoint = checkpoints.load(Path(folder))
        if checkpoint is not None:
            self.trainer.load_state(checkpoint)


def epoch_file(folder: Path, epoch: int) -> Path:
    return folder / f"epoch-{epoch:03d}.json"


def write_results(file: Path, result: Report, evaluation: Evaluation) -> None:
    """Records beside `file` as Parquet, then `file` itself, each complete or not there."""
    evaluation.save(file.with_suffix(".parquet"))
    partial = file.with_suffix(".partial")
    partial.write_text(json.dumps(result, indent=1, allow_nan=False))
    partial.replace(file)


def evaluation_sets(
    trial: TrialConfig, evaluation: EvaluationConfig, split: Split, model: PixelClip
) -> list[ImageSet]:
    at = evaluation.attack.at
    return [registry.load(config, split, model.image_size, at) for config in trial.data.evaluated]


def fine_tuned(trial: TrialConfig, folder: Path | None) -> PixelClip:
    """The model of a trial's checkpoint; the pre-trained one without a folder."""
    pretrained = models.load(trial.model.name, trial.model.pretrained, default_device())
    if folder is None:
        return pretrained
    tensors = checkpoints.load(folder)
    if tensors is None:
        raise FileNotFoundError(f"no readable checkpoint in {folder}")
    model = models.trainable_copy(pretrained, text=trial.trains_text, blocks=trial.model.blocks)
    weights = {k.removeprefix("model."): v for k, v in tensors.items() if k.startswith("model.")}
    model.clip.load_state_dict(weights, strict=False)
    return model.eval().requires_grad_(False)


def measure(
    *,
    trial: dict[str, Any],
    evaluation: dict[str, Any],
    split: Split,
    target: str,
    checkpoint: str | None,
    threads: int,
) -> None:
    """Evaluates a finished trial, or the pre-trained model if `checkpoint` is None, and writes
    `target` (JSON) with its records beside it. Does nothing where `target` is there already."""
    file = Path(target)
    if file.exists():
        return
    torch.set_num_threads(threads)
    file.parent.mkdir(parents=True, exist_ok=True)
    config, ruler = TrialConfig.model_validate(trial), EvaluationConfig.model_validate(evaluation)
    model = fine_tuned(config, None if checkpoint is None else Path(checkpoint))
    prompt = config.data.prompt
    temperature = None
    if split != "validation":
        held_out = evaluation_sets(config, ruler, "validation", model)[0]
        temperature = calibrate(model, held_out, prompt, ruler)
    sets = evaluation_sets(config, ruler, split, model)
    result = evaluate(model, sets, prompt, ruler, temperature=temperature)
    write_results(file, {"split": split, **result.report()}, result)


def sanity(
    *, trial: dict[str, Any], evaluation: dict[str, Any], split: Split, checkpoint: str | None, threads: int
) -> list[tuple[str, bool | None, str]]:
    """Can the robustness of a trial's model be believed? Name, verdict and numbers of each check of
    `attacks.sanity`, on a sample of the first set."""
    torch.set_num_threads(threads)
    config, ruler = TrialConfig.model_validate(trial), EvaluationConfig.model_validate(evaluation)
    model = fine_tuned(config, None if checkpoint is None else Path(checkpoint))
    images = evaluation_sets(config, ruler, split, model)[0].sample(
        min(SANITY_IMAGES, ruler.images or SANITY_IMAGES)
    )
    with precision(model, ruler):
        findings = check(
            classifier_of(model, images, config.data.prompt),
            to_pixels(images.images, model.device),
            to_device(images.labels, model.device),
            epsilon=ruler.attack.epsilon,
            norm=ruler.attack.norm,
            seed=ruler.seed,
        )
    return [(finding.name, finding.passed, finding.detail) for finding in findings]
