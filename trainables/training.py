"""Adversarial fine-tuning of a CLIP, in plain PyTorch: no Ray, no sweep.

    trainer = Trainer(TrialConfig.model_validate({"method": {"name": "tecoa"}}), seed=0)
    while trainer.epoch < trainer.config.epochs:
        print(trainer.train_epoch())

Everything random comes from generators of its own, seeded by trial and epoch.
"""

from __future__ import annotations

import copy
import math
import socket
import time
from dataclasses import dataclass
from functools import cache, cached_property, partial
from typing import TYPE_CHECKING

import numpy as np
import open_clip
import torch
from torch import Tensor

from trainables import models, steps
from trainables.attacks.pgd import attacked, pgd, uniform_start
from trainables.chunks import half, release_memory, slices
from trainables.data import registry
from trainables.errors import DeviceError, Diverged
from trainables.frozen import FrozenCache, FrozenKey, frozen_cache
from trainables.models import PixelClip
from trainables.once import NOWHERE, Store
from trainables.optimization import build_optimizer, set_learning_rate, update_average
from trainables.pixels import augment, prefetched, to_device, to_pixels
from trainables.progress import TRAINING, named, report
from trainables.views import Batch, BatchViews, ClassText, ModelViews

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from trainables.config import TrialConfig
    from trainables.data.images import ImageSet
    from trainables.views import Rows


@dataclass(frozen=True)
class EpochSummary:
    """What one epoch of training cost and gave. loss and parts: means over the epoch's images.
    micro_batch: images whose gradients were computed at a time at its end.  out_of_memory: how often
    they were halved."""

    epoch: int
    loss: float
    parts: dict[str, float]
    images_per_second: float
    seconds: float
    micro_batch: int
    out_of_memory: int


@dataclass(frozen=True)
class Drawn:
    """A batch of pixels (B, 3, H, W) and labels (B,), and what is random about it: drawn for all of its
    images, so that it does not matter which part of them is at hand.

    start, captions: give the attack's start, as the pixels, and tokens (B, L), drawn when first wanted.
    """

    indices: np.ndarray
    clean: Tensor
    labels: Tensor
    start: Callable[[], Tensor]
    captions: Callable[[], Tensor]
    text: ClassText


def default_device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


def check_device(gpus: float) -> None:
    """Raises DeviceError if this process was given GPUs, or a part of one, and torch finds none: what it
    trains on CPUs instead may take weeks."""
    if gpus and not torch.cuda.is_available():
        raise DeviceError(
            f"resources.gpus is {gpus:g}, and torch {torch.__version__} finds no CUDA device on "
            f"{socket.gethostname()}: see nvidia-smi there, and whether this torch is built for CUDA"
        )


class Trainer:
    """One trial's state: the trained model, the optimiser, how many epochs are done.

    Everything random depends on `seed` and the epoch alone, so a trainer restored after epoch n
    goes on exactly as one that was never interrupted. The model stays in eval mode: attack and loss see
    the same function, and batch normalisation (ResNets) keeps the pre-training's statistics.
    """

    def __init__(
        self,
        config: TrialConfig,
        seed: int,
        device: str | None = None,
        *,
        pretrained: PixelClip | None = None,
        images: ImageSet | None = None,
        store: Store = NOWHERE,
        micro_batch: int | None = None,
    ) -> None:
        """pretrained, images: what to train and on what, in the place of what `config` names.
        store: of what the pre-trained model says.
        micro_batch: images whose gradients are computed at a time, in the place of what `config` says."""
        self.config = config
        self.seed = seed
        self.epoch = 0
        self.method = config.method
        self.pretrained = pretrained or models.load(
            config.model.name, config.model.pretrained, device or default_device()
        )
        self.pretrained.keep_class_texts(store)
        self.store = store
        self.device = self.pretrained.device
        images = images or registry.load(
            config.data.train,
            "train",
            self.pretrained.fit,
            config.attack.at,
            count=config.data.images,
            prompt=config.data.prompt,
            decode=config.data.decode,
        )
        self.images = images.sample(config.data.images)
        self.micro_batch = min(
            config.batch_size, micro_batch or config.runtime.micro_batch or config.batch_size
        )
        self.out_of_memory = 0
        self.model = models.trainable_copy(
            self.pretrained, text=config.trains_text, blocks=config.model.blocks
        )
        self.frozen_text = self.pretrained.encode_classes(*self.vocabulary)
        self.parameters = [p for p in self.model.parameters() if p.requires_grad]
        self.optimizer = build_optimizer(
            config.optimizer, self.parameters, fused=config.runtime.fused_optimizer
        )
        self._prepare_runtime()
        self._average: PixelClip | None = None

    def _prepare_runtime(self) -> None:
        runtime = self.config.runtime
        self.model.channels_last = runtime.channels_last
        if runtime.compile:
            self.model.clip.visual.compile()

    @property
    def steps_per_epoch(self) -> int:
        return steps.per_epoch(len(self.images), self.config.batch_size)

    @property
    def total_steps(self) -> int:
        return self.steps_per_epoch * self.config.epochs

    @property
    def average(self) -> PixelClip:
        """The moving average of the trained model; a copy of it until the first update."""
        if self._average is None:
            self._average = PixelClip(copy.deepcopy(self.model.clip), self.model.tokenizer)
            self._average.to(self.device).eval().requires_grad_(False)
        return self._average

    @property
    def vocabulary(self) -> tuple[Sequence[str], Sequence[str]]:
        """Class names and templates."""
        return self.images.classes, self.images.templates

    def class_text(self) -> ClassText:
        """The class texts of the trained model as it is now. Where its text tower is trained through
        captions, they receive no gradient and are encoded only if they are wanted."""
        if not self.config.trains_text:
            return ClassText(lambda: self.frozen_text, gradient=False)
        if self.method.trains_text:
            return ClassText(lambda: self.model.encode_classes(*self.vocabulary), gradient=False)
        return ClassText(lambda: self.model.class_texts(self._class_tokens, self.micro_batch), gradient=True)

    @cached_property
    def _class_tokens(self) -> list[Tensor]:
        return self.model.class_tokens(*self.vocabulary)

    @cached_property
    def _frozen_key(self) -> FrozenKey:
        return FrozenKey.of(self.pretrained, self.images)

    @cached_property
    def _frozen_cache(self) -> FrozenCache:
        return frozen_cache(self._frozen_key, self.pretrained, self.images, self.frozen_text, self.store)

    @cached_property
    def _captions(self) -> Tensor:
        """(K, 80, L) tokens of the 80 OpenAI templates for every class."""
        templates = open_clip.OPENAI_IMAGENET_TEMPLATES
        return torch.stack([self.model.tokens([t(name) for t in templates]) for name in self.images.classes])

    def train_epoch(self) -> EpochSummary:
        """One pass over the training images. Raises Diverged if a loss was not finite, and MemoryShortage
        if memory runs out on a single image."""
        started = time.perf_counter()
        self.out_of_memory = 0
        seed = int(np.random.SeedSequence([self.seed, self.epoch]).generate_state(1)[0])
        generator = torch.Generator(self.device).manual_seed(seed)
        totals: dict[str, Tensor] = {}
        step = self.epoch * self.steps_per_epoch
        with named(TRAINING):
            for indices, stored in prefetched(self.images, self._batches(seed)):
                for name, value in self.train_step(step, indices, generator, stored).items():
                    totals[name] = totals.get(name, torch.zeros((), device=self.device)) + value
                step += 1
                report(step - self.epoch * self.steps_per_epoch, self.steps_per_epoch)
        self.epoch += 1
        parts = {name: float(total) / self.steps_per_epoch for name, total in totals.items()}
        loss = sum(parts.values())
        if not math.isfinite(loss):
            raise Diverged(f"the training loss is {loss} in epoch {self.epoch}")
        seconds = time.perf_counter() - started
        count = self.steps_per_epoch * min(self.config.batch_size, len(self.images))
        return EpochSummary(
            self.epoch, loss, parts, count / seconds, seconds, self.micro_batch, self.out_of_memory
        )

    def _batches(self, seed: int) -> Iterator[np.ndarray]:
        order = np.random.default_rng(seed).permutation(len(self.images))
        size = self.config.batch_size
        for step in range(self.steps_per_epoch):
            yield np.sort(order[step * size : (step + 1) * size])

    def train_step(
        self,
        step: int,
        indices: np.ndarray,
        generator: torch.Generator,
        stored: np.ndarray | None = None,
    ) -> dict[str, Tensor]:
        """Means of the loss parts, detached; nothing here waits for the device.

        stored: (B, H, W, 3) images of `indices`, where they were read ahead.
        """
        set_learning_rate(self.optimizer, self.config.optimizer, step, self.total_steps)
        stored = self.images.pixels(indices) if stored is None else stored
        means = self._gradients(partial(self._draw, indices, stored, generator), generator)
        if self.config.optimizer.gradient_clip is not None:
            torch.nn.utils.clip_grad_norm_(self.parameters, self.config.optimizer.gradient_clip)
        self.optimizer.step()
        momentum = self.method.averaging(step, self.total_steps)
        if momentum is not None:
            update_average(self.average, self.model, momentum)
        return means

    def _gradients(self, draw: Callable[[], Drawn], generator: torch.Generator) -> dict[str, Tensor]:
        """Leaves the batch's gradients at the weights. Where memory runs out, the same is done again
        with half the micro-batch, which stays."""
        before = generator.get_state()
        while True:
            self.optimizer.zero_grad(set_to_none=True)
            try:
                return self._accumulate(draw())
            except RuntimeError as error:
                self.micro_batch = half(min(self.micro_batch, len(self.images)), error)
            self.out_of_memory += 1
            release_memory()
            generator.set_state(before)

    def _accumulate(self, drawn: Drawn) -> dict[str, Tensor]:
        """Adds up the gradients of all parts of a batch. Gives the loss parts' means over the batch."""
        count = len(drawn.indices)
        totals: dict[str, Tensor] = {}
        for rows in slices(count, count if self.method.couples_images else self.micro_batch):
            share = (rows.stop - rows.start) / count
            parts = self.method.loss(self._part(drawn, rows))
            means = {name: share * part.mean() for name, part in parts.items()}
            torch.stack([mean.double() for mean in means.values()]).sum().backward()
            for name, mean in means.items():
                totals[name] = totals.get(name, 0) + mean.detach()
        drawn.text.backward()
        return totals

    def _draw(self, indices: np.ndarray, stored: np.ndarray, generator: torch.Generator) -> Drawn:
        clean = to_pixels(stored, self.device)
        if self.config.data.augment:
            clean = augment(clean, generator)
        labels = to_device(self.images.labels[indices], self.device)
        attack = self.config.attack
        return Drawn(
            indices,
            clean,
            labels,
            start=cache(lambda: uniform_start(clean, attack.epsilon, generator, attack.norm)),
            captions=cache(lambda: self._draw_captions(labels, generator)),
            text=self.class_text(),
        )

    def _views(self, indices: np.ndarray, generator: torch.Generator) -> BatchViews:
        """The whole batch as a loss sees it."""
        return self._part(self._draw(indices, self.images.pixels(indices), generator), slice(0, len(indices)))

    def _part(self, drawn: Drawn, rows: slice) -> BatchViews:
        """Some images of a batch as a loss sees them."""
        batch = Batch(
            drawn.clean[rows],
            drawn.labels[rows],
            attack=lambda: self._adversarial(drawn, rows, views),
            draw_captions=lambda: drawn.captions()[rows],
            chunk=self.micro_batch,
        )
        text = drawn.text
        views = BatchViews(
            trained=ModelViews(self.model, lambda: text.leaf, batch, gradient=True),
            detached=ModelViews(self.model, lambda: text.detached, batch, gradient=False),
            frozen=lambda: ModelViews(
                self.pretrained,
                lambda: self.frozen_text,
                batch,
                gradient=False,
                clean_rows=None if self.config.data.augment else self._frozen_rows(drawn.indices[rows]),
            ),
            average=lambda: ModelViews(self.average, lambda: self.frozen_text, batch, gradient=False),
        )
        return views

    def _frozen_rows(self, indices: np.ndarray) -> Rows:
        return partial(self._frozen_cache.rows, self._frozen_key, indices)

    def _adversarial(self, drawn: Drawn, rows: slice, views: BatchViews) -> Tensor:
        """The attacked images of a part; of one larger than a micro-batch, those of its own parts."""
        if self.config.attack.epsilon == 0:
            return views.trained.batch.clean
        parts = list(slices(rows.stop - rows.start, self.micro_batch))
        if len(parts) == 1:
            return self._attack(views, drawn.start()[rows])
        return torch.cat([self._part(drawn, part).trained.batch.adversarial for part in parts])

    def _attack(self, views: BatchViews, start: Tensor) -> Tensor:
        attack, known = self.config.attack, views.without_gradient()
        with attacked(self.model):
            return pgd(
                lambda pixels: self.method.attack_loss(views.trained.view(pixels), known),
                views.trained.batch.clean,
                start=start,
                epsilon=attack.epsilon,
                step_size=attack.step,
                steps=attack.steps,
                norm=attack.norm,
                momentum=attack.momentum,
            )

    def _draw_captions(self, labels: Tensor, generator: torch.Generator) -> Tensor:
        template = torch.randint(
            self._captions.shape[1], labels.shape, generator=generator, device=self.device
        )
        return self._captions[labels, template]

    def trained_weights(self) -> dict[str, Tensor]:
        """The parameters that fine-tuning changed, by open_clip's names."""
        return {
            name: parameter.detach()
            for name, parameter in self.model.clip.named_parameters()
            if parameter.requires_grad
        }

    def state(self) -> dict[str, Tensor]:
        """All that `load_state` needs, as a flat dictionary of tensors without any pickled object."""
        tensors = {f"model.{name}": value for name, value in self.trained_weights().items()}
        if self._average is not None:
            tensors |= {f"average.{name}": v for name, v in self._average.clip.state_dict().items()}
        for index, parameter in enumerate(self.parameters):
            for key, value in self.optimizer.state.get(parameter, {}).items():
                if value is not None:
                    tensors[f"optimizer.{index}.{key}"] = torch.as_tensor(value)
        own = {"epoch": torch.tensor(self.epoch), "micro_batch": torch.tensor(self.micro_batch)}
        return own | {k: v.contiguous() for k, v in tensors.items()}

    def load_state(self, tensors: dict[str, Tensor]) -> None:
        self.epoch = int(tensors["epoch"])
        self.micro_batch = min(self.micro_batch, int(tensors["micro_batch"]))
        with torch.no_grad():
            for name, parameter in self.model.clip.named_parameters():
                if parameter.requires_grad:
                    parameter.copy_(tensors[f"model.{name}"])
        average = {k[8:]: v for k, v in tensors.items() if k.startswith("average.")}
        if average:
            self.average.clip.load_state_dict(average)
        for key, value in tensors.items():
            if key.startswith("optimizer."):
                _, index, name = key.split(".", 2)
                parameter = self.parameters[int(index)]
                # AdamW keeps its step counter on the CPU, unless it is fused
                fused = self.config.runtime.fused_optimizer
                place = "cpu" if name == "step" and not fused else self.device
                self.optimizer.state[parameter][name] = value.clone().to(place)
