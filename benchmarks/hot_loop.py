"""Images per second of one training step of each method, three ways, side by side in one run:

(a) ours: `Trainer.train_step`, everything in it.
(b) the published style of loop: the class text encoded again, with gradients, in every forward pass;
    weight gradients inside the attack; forward passes for logging.
(c) bare: the forward and backward passes that the mathematics needs, each timed alone, added up.

    python -m benchmarks.hot_loop --classes 200 --classes 1000
    python -m benchmarks.hot_loop --variants        # torch.compile, channels-last, fused optimiser

The model has random weights: speed does not depend on them. Read the ratios; the seconds are noisy.
"""

from __future__ import annotations

import copy
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import click
import numpy as np
import open_clip
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize

from trainables.config import TrialConfig
from trainables.data.images import Held, ImageSet
from trainables.models import PixelClip, class_prompts
from trainables.training import Trainer, default_device

METHODS = ("tecoa", "pmg", "dirichlet", "tga", "agft", "fare", "carot")
STEPS = 2
FARE_STEPS = 10
WARM_UP = 3
"""Steps that are not timed: the frozen model's outputs, momentum buffers, and the allocator's growth."""
TEXT_GIB_PER_PROMPT = 0.029  # activations of one prompt in ViT-B-32's text tower that a backward needs


def attack_of(method: str) -> dict[str, object]:
    if method == "carot":
        return {"epsilon": 0}  # as published
    return {"epsilon": "1/255", "step_size": "1/255", "steps": FARE_STEPS if method == "fare" else STEPS}


@dataclass
class Case:
    """One method at one size: the same model, images and labels for all three ways."""

    method: str
    model: PixelClip
    classes: int
    batch: int
    runtime: dict[str, bool] = field(default_factory=dict)

    @cached_property
    def images(self) -> ImageSet:
        rng = np.random.default_rng(0)
        size = (self.batch, *self.model.image_size, 3)
        names = tuple(f"class number {k}" for k in range(self.classes))
        labels = rng.integers(0, self.classes, self.batch)
        return ImageSet("noise", "train", Held(rng.integers(0, 256, size, dtype=np.uint8)), labels, names)

    @cached_property
    def trainer(self) -> Trainer:
        config = {
            "method": {"name": self.method},
            "attack": attack_of(self.method),
            "batch_size": self.batch,
            "runtime": self.runtime,
            "optimizer": {"name": "sgd", "learning_rate": 1e-6},
        }
        return Trainer(TrialConfig.model_validate(config), seed=0, pretrained=self.model, images=self.images)

    def ours(self) -> None:
        generator = torch.Generator(self.model.device).manual_seed(0)
        self.trainer.train_step(0, np.arange(self.batch), generator)

    @property
    def bare(self) -> dict[str, int]:
        """How often the mathematics needs each pass of `Passes`. What the frozen model says of clean
        images is not among them: it is computed once per image and sweep."""
        attack = {"image_input_gradient": FARE_STEPS if self.method == "fare" else STEPS}
        return {
            "tecoa": attack | {"image_weight_gradient": 1},
            "pmg": attack | {"image_weight_gradient": 1, "image": 2},
            "dirichlet": attack | {"image_weight_gradient": 1},
            "tga": attack | {"image_weight_gradient": 2},
            "agft": attack | {"image_weight_gradient": 1},
            "fare": attack | {"image_weight_gradient": 1},
            "carot": {"image_weight_gradient": 1, "caption_weight_gradient": 1, "image": 1, "caption": 1},
        }[self.method]

    def published(self) -> Callable[[], None]:
        return Published(self).step


class Passes:
    """The bare passes, on one batch."""

    def __init__(self, case: Case) -> None:
        self.model = case.trainer.model
        self.clip = self.model.clip
        self.frozen = case.model.clip
        self.pixels = torch.rand(case.batch, 3, *case.model.image_size, device=case.model.device)
        self.tokens = case.model.tokens(["a photo of something"] * case.batch)

    def image(self) -> None:
        with torch.no_grad(), self.model.autocast():
            self.frozen.encode_image(self.pixels)

    def image_input_gradient(self) -> None:
        pixels = self.pixels.clone().requires_grad_(True)
        with self.model.autocast():
            value = self.frozen.encode_image(pixels).float().sum()  # its weights ask for no gradient
        torch.autograd.grad(value, pixels)

    def image_weight_gradient(self) -> None:
        self.clip.zero_grad(set_to_none=True)
        with self.model.autocast():
            value = self.clip.encode_image(self.pixels).float().sum()
        value.backward()

    def caption(self) -> None:
        with torch.no_grad(), self.model.autocast():
            self.frozen.encode_text(self.tokens)

    def caption_weight_gradient(self) -> None:
        self.clip.zero_grad(set_to_none=True)
        with self.model.autocast():
            value = self.clip.encode_text(self.tokens).float().sum()
        value.backward()


class Published:
    """One step in the published style. For the methods whose own code has no class text in its loop
    (FARE, CaRot) that part does not occur; AGFT's own code does better, and is run in the style here."""

    def __init__(self, case: Case) -> None:
        self.case, self.method = case, case.method
        self.trainer = case.trainer
        self.model = self.trainer.model
        self.clip, self.frozen = self.model.clip, case.model.clip
        (template,) = self.case.images.templates
        self.tokens = self.model.tokens(class_prompts(template, self.case.images.classes))
        self.labels = torch.from_numpy(case.images.labels).to(self.model.device)
        self.steps = self.trainer.config.attack.steps if self.trainer.config.attack.epsilon else 0
        self.optimizer = torch.optim.SGD(self.clip.visual.parameters(), lr=1e-6, momentum=0.9)

    def image(self, clip: Any, pixels: Tensor) -> Tensor:
        with self.model.autocast():
            embeddings: Tensor = clip.encode_image((pixels - self.model.mean) / self.model.std)
        return embeddings.float()

    def logits(self, clip: Any, pixels: Tensor) -> Tensor:
        """Both towers, as `model(images, tokens)` does."""
        with self.model.autocast():
            text = clip.encode_text(self.tokens).float()
        return 100 * normalize(self.image(clip, pixels), dim=-1) @ normalize(text, dim=-1).T

    def attack_value(self, pixels: Tensor) -> Tensor:
        if self.method == "fare":
            return self.image(self.clip, pixels).square().sum(-1).mean()
        return cross_entropy(self.logits(self.clip, pixels), self.labels)

    def step(self) -> None:
        flags = [(p, p.requires_grad) for p in self.clip.parameters()]
        self.clip.requires_grad_(True)  # the text tower's too: nobody switches them off
        try:
            self._step()
        finally:
            for parameter, flag in flags:
                parameter.requires_grad_(flag)
            self.clip.zero_grad(set_to_none=True)

    def _step(self) -> None:
        self.optimizer.zero_grad()
        clean = torch.from_numpy(self.case.images.pixels()).to(self.model.device).permute(0, 3, 1, 2) / 255
        delta = torch.empty_like(clean).uniform_(-1 / 255, 1 / 255).requires_grad_(True)
        for _ in range(self.steps):
            self.attack_value(clean + delta).backward()  # weight gradients and all
            assert delta.grad is not None
            delta.data = (delta.data + delta.grad.sign() / 255).clamp(-1 / 255, 1 / 255)
            delta.grad.zero_()
        loss = self.loss(clean, (clean + delta.detach()).clamp(0, 1))
        loss.backward()
        self.optimizer.step()
        loss.item()

    def loss(self, clean: Tensor, attacked: Tensor) -> Tensor:
        clip, frozen = self.clip, self.frozen
        if self.method == "fare":
            with torch.no_grad():
                target = self.image(frozen, clean)
            self.image(clip, clean)  # logged
            return (self.image(clip, attacked) - target).square().sum(-1).mean()
        if self.method == "carot":
            captions = self.model.tokens(["a photo of something"] * len(clean))
            with self.model.autocast():
                text = clip.encode_text(captions).float()
            with torch.no_grad(), self.model.autocast():
                frozen.encode_text(captions)
                frozen.encode_image(clean)
            scaled = 100 * normalize(self.image(clip, clean), dim=-1) @ normalize(text, dim=-1).T
            return cross_entropy(scaled, torch.arange(len(clean), device=scaled.device))
        logits = self.logits(clip, attacked)
        loss = cross_entropy(logits, self.labels)
        if self.method == "pmg":
            with torch.no_grad():
                target = self.logits(frozen, attacked).softmax(-1)
            clean_logits = self.logits(clip, clean)
            loss = loss - (target * logits.log_softmax(-1)).sum(-1).mean()
            loss = loss - (clean_logits.softmax(-1) * logits.log_softmax(-1)).sum(-1).mean()
        elif self.method == "tga":  # the attention maps are forward passes of their own
            with torch.no_grad():
                self.image(frozen, clean)
            loss = loss + self.image(clip, attacked).square().mean() + self.image(clip, clean).square().mean()
        elif self.method in ("dirichlet", "agft"):
            with torch.no_grad():
                target = self.logits(frozen, clean).softmax(-1)
                self.logits(clip, clean)  # logged
            loss = loss - (target * logits.log_softmax(-1)).sum(-1).mean()
        return loss


def seconds(function: Callable[[], None], device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    started = time.perf_counter()
    function()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - started


def random_model(name: str, device: str) -> PixelClip:
    clip = open_clip.create_model(name, pretrained=None, precision="fp32", device=device)
    return PixelClip(clip, open_clip.get_tokenizer(name)).to(device).eval().requires_grad_(False)


def text_fits(classes: int, device: torch.device) -> bool:
    """Whether the activations of the class text with gradients fit into memory."""
    if device.type == "cuda":
        free = torch.cuda.mem_get_info(device)[0]
    else:
        with open("/proc/meminfo", encoding="ascii") as file:
            free = next(int(line.split()[1]) * 1024 for line in file if line.startswith("MemAvailable"))
    return classes * TEXT_GIB_PER_PROMPT * 2**30 < 0.8 * free


def measure(case: Case, repeats: int, published: bool) -> dict[str, float]:
    """Median seconds of (a), (b) and (c); within a round they are timed one after the other."""
    device, passes = case.model.device, Passes(case)
    times: dict[str, list[float]] = {"a": [], "b": [], "c": []}
    for _ in range(WARM_UP):
        case.ours()
    step = case.published()
    for _ in range(repeats):
        times["a"].append(seconds(case.ours, device))
        times["c"].append(sum(n * seconds(getattr(passes, p), device) for p, n in case.bare.items()))
    for _ in range(min(repeats, 1) if published else 0):
        times["b"].append(seconds(step, device))
    return {name: statistics.median(values) for name, values in times.items() if values}


def compare_variants(model: PixelClip, batch: int, repeats: int) -> None:
    """Prints how much faster than the plain loop each option of `trial.runtime` makes a TeCoA step."""
    options: list[dict[str, bool]] = [
        {},
        {"channels_last": True},
        {"fused_optimizer": True},
        {"compile": True},
    ]
    cases = [Case("tecoa", copy.deepcopy(model), 200, batch, runtime) for runtime in options]
    for case in cases:
        case.ours()  # warm-up and compilation
        case.ours()
    rounds = [[seconds(case.ours, model.device) for case in cases] for _ in range(repeats)]
    medians = [statistics.median(times) for times in zip(*rounds, strict=True)]
    for runtime, median in zip(options, medians, strict=True):
        name = ", ".join(runtime) or "plain"
        click.echo(f"{name:<16} {batch / median:>8.2f} images/s  {medians[0] / median:>6.2f} x plain")


@click.command()
@click.option("--model", "name", default="ViT-B-32", show_default=True)
@click.option("--classes", multiple=True, type=int, default=(200, 1000), show_default=True)
@click.option("--batch", default=32, show_default=True)
@click.option("--repeats", default=3, show_default=True, help="Rounds; medians are shown. (b) runs once.")
@click.option("--method", "methods", multiple=True, default=METHODS, show_default=True)
@click.option("--threads", type=int, help="CPU threads; torch's own number by default.")
@click.option("--device", default=default_device)
@click.option("--variants", is_flag=True, help="Compare the options of `trial.runtime` on TeCoA instead.")
def main(
    *,
    name: str,
    classes: tuple[int, ...],
    batch: int,
    repeats: int,
    methods: tuple[str, ...],
    threads: int | None,
    device: str,
    variants: bool,
) -> None:
    """Images per second of a training step: ours, in the published style, and its bare passes."""
    if threads:
        torch.set_num_threads(threads)
    model = random_model(name, device)
    click.echo(
        f"{name}, random weights, {model.image_size[0]} px, batch {batch}, {device}, "
        f"{torch.get_num_threads()} threads, torch {torch.__version__}, medians of {repeats} rounds"
    )
    if variants:
        compare_variants(model, batch, repeats)
        return
    columns = ("(a) ours", "(b) publ.", "(c) bare")
    click.echo(f"{'method':<10} {'K':>5} {' '.join(f'{c:>10}' for c in columns)} {'a/b':>6} {'a/c':>6}")
    for count in classes:
        fits = text_fits(count, model.device)
        if not fits:
            click.echo(
                f"K = {count}: (b) is not run where it encodes class text with gradients, which needs about "
                f"{count * TEXT_GIB_PER_PROMPT:.0f} GiB of activations: more than is free here"
            )
        for method in methods:
            result = measure(Case(method, model, count, batch), repeats, fits or method in ("fare", "carot"))
            rates = {way: batch / t for way, t in result.items()}
            over_b = f"{rates['a'] / rates['b']:.2f}" if "b" in rates else "-"
            b = f"{rates['b']:.2f}" if "b" in rates else "-"
            click.echo(
                f"{method:<10} {count:>5} {rates['a']:>10.2f} {b:>10} {rates['c']:>10.2f} "
                f"{over_b:>6} {rates['a'] / rates['c']:>6.2f}"
            )


if __name__ == "__main__":
    main()
