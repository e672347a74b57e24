"""How much memory a trial needs, told without allocating any, and how much it may use.

The weights are counted on the meta device. The activations are those that autograd saves when the
method's own loss and attack run on fake tensors, which have shape, dtype and device but no storage:
whatever the architecture, and in bfloat16 for CUDA as the trial will run there.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode  # what torch.compile plans memory with

from trainables import models
from trainables.attacks.pgd import attacked
from trainables.config import TrialConfig
from trainables.data import registry
from trainables.errors import DataError, MemoryShortage
from trainables.methods import Method
from trainables.models import PixelClip
from trainables.views import Batch, BatchViews, ModelViews

MIB, GIB = 2**20, 2**30

PROCESS = {"cpu": 800 * MIB, "cuda": 640 * MIB}
"""What a process takes before it computes: libraries on the CPU (measured), context and workspaces on
CUDA (an allowance)."""
OVERHEAD = {"cpu": 1.5, "cuda": 1.1}
"""Of what autograd saves, for what exists for a moment beside it and for the allocator's gaps: measured
with glibc's on the CPU, where 45 MiB are taken for the 29 of an image in ViT-B-32; an allowance on CUDA."""
PIXEL_COPIES = 3
"""Of the whole batch's pixels: clean, the attack's start, attacked."""
STATES = {"sgd": 1, "adamw": 2}
"""Numbers that an optimiser keeps for each weight; SGD without momentum keeps none."""
UNKNOWN_CLASSES = 1000
"""Assumed of a data set that is not on this machine."""
USUAL_GPUS = (16 * GIB, 24 * GIB, 40 * GIB, 80 * GIB)


@dataclass(frozen=True)
class MemoryEstimate:
    """Bytes that training takes at its peak.

    fixed: weights, gradients, optimiser, the whole batch's pixels, and the process itself.
    image: activations of each image of a micro-batch.  text: of each of `texts` class texts, where
    they are trained.  update: what an optimiser step takes for a moment, when activations are gone.
    weights: of those that are trained, which an epoch leaves on disk.
    """

    fixed: int
    image: int
    text: int
    texts: int
    update: int
    weights: int

    def total(self, micro_batch: int) -> int:
        activations = micro_batch * self.image + min(micro_batch, self.texts) * self.text
        return self.fixed + max(activations, self.update)

    def largest(self, limit: int, micro_batch: int) -> int | None:
        """The largest micro-batch within `limit` bytes that halving leads to; None if there is none."""
        while micro_batch and self.total(micro_batch) > limit:
            micro_batch //= 2
        return micro_batch or None


def estimate(trial: TrialConfig, device: str) -> MemoryEstimate:
    """What a trial needs on `cpu` or `cuda`, whichever of them this machine has. Raises ModelError."""
    frozen = models.blueprint(trial.model.name)
    trained = models.trainable_copy(frozen, text=trial.trains_text, blocks=trial.model.blocks)
    weights = size_of(frozen.clip.state_dict().values())
    moving = size_of(p for p in trained.parameters() if p.requires_grad)
    averages = type(trial.method).averaging is not Method.averaging
    optimizer = trial.optimizer
    states = STATES[optimizer.name] if optimizer.name != "sgd" or optimizer.momentum else 0
    pixels = 4 * 3 * frozen.image_size[0] * frozen.image_size[1]
    texts = class_count(trial)
    in_class_texts = trial.trains_text and not trial.method.trains_text

    dry = DryRun(trained, device)
    image, once = per_row(lambda count: dry.step(trial.method, count, texts, in_class_texts))
    text, text_once = per_row(dry.texts) if in_class_texts else (0, 0)
    return MemoryEstimate(
        fixed=PROCESS[device]
        + (2 + averages) * weights
        + (1 + states) * moving
        + PIXEL_COPIES * pixels * trial.batch_size
        + once
        + text_once,
        image=image,
        text=text,
        texts=texts,
        update=moving if device == "cuda" and states == 2 and not trial.runtime.fused_optimizer else 0,
        weights=moving,
    )


def size_of(tensors: Iterator[Tensor] | Any) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def class_count(trial: TrialConfig) -> int:
    try:
        return len(registry.vocabulary(trial.data.train, trial.data.prompt)[0])
    except DataError:
        return UNKNOWN_CLASSES


def per_row(saved: Callable[[int], int]) -> tuple[int, int]:
    """Bytes that grow with the rows of a batch, for each, and those that don't."""
    two, four = saved(2), saved(4)
    return (four - two) // 2, max(0, 2 * two - four)


class DryRun:
    """A model of fake tensors, and what autograd saves of its computations."""

    def __init__(self, model: PixelClip, device: str) -> None:
        """model: on the meta device; its weights are replaced."""
        self.device = device
        self.mode = FakeTensorMode()
        with self.mode:
            self.model = FakeClip(model.clip, device)
            make_fake(self.model, device)
        tensors = [*self.model.parameters(), *self.model.buffers()]
        self.weights = {tensor.untyped_storage()._cdata for tensor in tensors}

    def step(self, method: Method, count: int, classes: int, text_gradient: bool) -> int:
        """Bytes taken by the loss of `count` images, or by their attack's, if those are more."""
        with self.mode:
            views = self._views(count, classes, text_gradient)
            loss = self._saved(lambda: method.loss(views))
            pixels = views.trained.batch.clean.clone().requires_grad_()
            with attacked(self.model):
                attack = self._saved(lambda: method.attack_loss(views.trained.view(pixels), views))
        return round(OVERHEAD[self.device] * max(loss, attack))

    def texts(self, count: int) -> int:
        """Bytes taken by `count` class texts."""
        with self.mode:
            tokens = torch.zeros(count, self.model.context_length, dtype=torch.long, device=self.device)
            return round(OVERHEAD[self.device] * self._saved(lambda: self.model.text_features(tokens)))

    def _views(self, count: int, classes: int, text_gradient: bool) -> BatchViews:
        def tokens() -> Tensor:
            return torch.zeros(count, self.model.context_length, dtype=torch.long, device=self.device)

        clean = torch.zeros(count, 3, *self.model.image_size, device=self.device)
        labels = torch.zeros(count, dtype=torch.long, device=self.device)
        text = self.model.text_features(tokens()[:1]).detach().expand(classes, -1).clone()
        leaf = text.clone().requires_grad_(text_gradient)
        batch = Batch(clean, labels, attack=lambda: torch.zeros_like(clean), draw_captions=tokens)
        # frozen and average keep no more than the trained model without gradient does
        still = ModelViews(self.model, lambda: text, batch, gradient=False)
        trained = ModelViews(self.model, lambda: leaf, batch, gradient=True)
        return BatchViews(trained, still, frozen=lambda: still, average=lambda: still)

    def _saved(self, compute: Callable[[], Any]) -> int:
        """Bytes of what autograd saves meanwhile, each storage once and weights not at all."""
        storages: dict[int, Any] = {}

        def pack(tensor: Tensor) -> Tensor:
            storage = tensor.untyped_storage()
            if storage._cdata not in self.weights:
                storages[storage._cdata] = storage
            return tensor

        attention = fused_attention() if self.device == "cuda" else nullcontext()
        with attention, torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            kept = compute()  # noqa: F841, or its graph is gone before it is counted
        return sum(storage.nbytes() for storage in storages.values())


class FakeClip(PixelClip):
    """A PixelClip of fake tensors: CUDA's autocast on any machine."""

    def __init__(self, clip: models.Clip, device: str) -> None:
        super().__init__(clip, models.no_tokenizer)
        self.eval()
        self.autocast_on = device == "cuda"

    @property
    def context_length(self) -> int:
        return int(getattr(self.clip, "context_length", None) or self.clip.text.context_length)

    def autocast(self) -> AbstractContextManager[Any]:
        return cuda_autocast() if self.autocast_on else nullcontext()


@contextmanager
def cuda_autocast() -> Iterator[None]:
    """As `torch.autocast("cuda", torch.bfloat16)`, which refuses machines without CUDA."""
    enabled, dtype = torch.is_autocast_enabled("cuda"), torch.get_autocast_dtype("cuda")
    torch.set_autocast_enabled("cuda", True)
    torch.set_autocast_dtype("cuda", torch.bfloat16)
    torch.autocast_increment_nesting()
    try:
        yield
    finally:
        if torch.autocast_decrement_nesting() == 0:
            torch.clear_autocast_cache()
        torch.set_autocast_enabled("cuda", enabled)
        torch.set_autocast_dtype("cuda", dtype)


@contextmanager
def fused_attention() -> Iterator[None]:
    """Inside, attention saves its inputs, its output and one number for each query and head, as CUDA's
    fused kernels do; fake tensors choose what runs everywhere, which saves all attention weights."""

    def attention(
        query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None, *_: Any, **options: Any
    ) -> Tensor:
        fused = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
        output: Tensor = fused(
            query, key, value, is_causal=options.get("is_causal", False), attn_mask=attn_mask
        )[0]
        return output

    before = F.scaled_dot_product_attention
    F.scaled_dot_product_attention = attention
    try:
        yield
    finally:
        F.scaled_dot_product_attention = before


def make_fake(model: nn.Module, device: str) -> None:
    """Puts fake tensors on `device` in the place of all weights; to be called in a FakeTensorMode."""
    for module in model.modules():
        for name, parameter in module._parameters.items():
            if parameter is not None:
                fake = torch.empty(parameter.shape, dtype=parameter.dtype, device=device)
                module._parameters[name] = nn.Parameter(fake, requires_grad=parameter.requires_grad)
        for name, buffer in module._buffers.items():
            if buffer is not None:
                module._buffers[name] = torch.empty(buffer.shape, dtype=buffer.dtype, device=device)


def share(device: str, *, cpus: float, gpus: float, concurrent: int | None = None) -> int:
    """Bytes that a trial may use: an equal part of the machine's memory beside as many trials as its CPUs
    hold, or as run at all, if these are fewer; or of the GPU's memory the fraction of it that is the
    trial's; all of that, if the trial counts no GPU and finds one."""
    if device == "cuda":
        return int(min(gpus or 1, 1) * torch.cuda.get_device_properties(0).total_memory)
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    fit_beside = max(1, int((os.cpu_count() or 1) / cpus))
    return memory // min(fit_beside, concurrent or fit_beside)


def claim(trial: TrialConfig, device: str, *, cpus: float, gpus: float, concurrent: int | None = None) -> int:
    """The micro-batch with which a trial keeps to its share; on CUDA it can't take more from now on.

    Raises MemoryShortage if the share is too small for a single image, or not there.
    """
    need = estimate(trial, device)
    limit = share(device, cpus=cpus, gpus=gpus, concurrent=concurrent)
    micro_batch = need.largest(limit, wanted(trial))
    if micro_batch is None:
        key = f"gpus: {gpus:g}" if device == "cuda" else f"cpus: {cpus:g}"
        raise MemoryShortage(
            f"a trial needs about {gib(need.total(1))} even with a single image at a time, and its share of "
            f"the memory ({key}) is {gib(limit)}; give it a larger share under `resources`, or choose a "
            "smaller model"
        )
    if device == "cuda":
        torch.cuda.set_per_process_memory_fraction(min(gpus or 1, 1))
        check_free(need.total(micro_batch))
    return micro_batch


def check_free(need: int) -> None:
    """Raises MemoryShortage if the GPU has less left than `need` bytes for this process."""
    free, total = torch.cuda.mem_get_info()
    own = torch.cuda.memory_reserved()
    if free + own < need:
        raise MemoryShortage(
            f"a trial needs about {gib(need)} of the GPU's {gib(total)}, and {gib(free + own)} are free: "
            "other processes hold the rest; end them, or run fewer trials side by side"
        )


def wanted(trial: TrialConfig) -> int:
    """The micro-batch of a trial that has all the memory it wants."""
    return min(trial.batch_size, trial.runtime.micro_batch or trial.batch_size)


def gib(size: int) -> str:
    return f"{size / GIB:.1f} GiB"


def plan(
    trials: Sequence[dict[str, Any]], *, cpus: float, gpus: float, concurrent: int | None = None
) -> list[str]:
    """Lines that say what fits: for each model, method and batch size among `trials`, the one that needs
    most. cpus, gpus, concurrent: see `share`."""
    needs: dict[str, tuple[TrialConfig, str, MemoryEstimate]] = {}
    device = "cuda" if gpus else "cpu"
    for config in trials:
        trial = TrialConfig.model_validate(config)
        name = f"{trial.model.name}, {trial.method.name}, batch {trial.batch_size}"
        need = estimate(trial, device)
        if name not in needs or need.total(wanted(trial)) > needs[name][2].total(wanted(needs[name][0])):
            needs[name] = trial, name, need
    own = {"cpus": cpus, "gpus": gpus, "concurrent": concurrent}
    return [line for trial, name, need in needs.values() for line in lines(trial, name, need, own)]


def lines(trial: TrialConfig, name: str, need: MemoryEstimate, own: dict[str, Any]) -> Iterator[str]:
    cpus, gpus = own["cpus"], own["gpus"]
    size = wanted(trial)
    activations = (need.total(size) - need.fixed) / size / MIB
    yield (
        f"{name}: a trial needs about {gib(need.total(size))} "
        f"({gib(need.fixed)} + {activations:.1f} MiB an image x {size})"
    )
    yield f"  the weights that an epoch leaves on disk: {need.weights / MIB:.1f} MiB"
    if not gpus:
        yield f"  with cpus {cpus:g}: {fit(need, share('cpu', **own), size)}"
        need = estimate(trial, "cuda")
    for label, total in gpus_to_plan_for():
        beside = f"{total // need.total(size)} side by side" if total >= need.total(size) else "none as it is"
        shared = f"; with gpus {gpus:g}: {fit(need, int(min(gpus, 1) * total), size)}" if gpus else ""
        yield f"  {label}: {beside}{shared}"


def gpus_to_plan_for() -> list[tuple[str, int]]:
    """The GPU of this machine; usual sizes, if it has none."""
    if torch.cuda.is_available():
        device = torch.cuda.get_device_properties(0)
        return [(f"{device.name} ({gib(device.total_memory)})", device.total_memory)]
    return [(f"a GPU of {size // GIB} GiB", size) for size in USUAL_GPUS]


def fit(need: MemoryEstimate, limit: int, size: int) -> str:
    """How a trial runs within `limit` bytes."""
    fits = need.largest(limit, size)
    if fits is None:
        return f"not even a single image at a time fits {gib(limit)}"
    if fits == size:
        return f"fits {gib(limit)}"
    return f"accumulates over micro-batches of {fits} in {gib(limit)}"
