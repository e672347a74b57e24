"""The attacks of torchattacks (Kim, arXiv 2010.01950), an optional extra, made safe to call.

What torchattacks 3.5.1 does to its caller is undone here: it leaves the whole model in train mode,
collects weight gradients, reseeds the global generators (APGD, FAB, Square), keeps state between
calls and assumes ten classes. What it computes is left as it is, except that `CW` gets non-negative
logits, without which it is wrong (its issue 184). Mind two things in its results: the APGD family,
FAB and Square return the *clean* image where they did not succeed, and its `AutoAttack` (10 steps,
K - 1 targets, at least four classes) is not what the literature means by that name.
"""

from __future__ import annotations

import difflib
import inspect
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from trainables.attacks.pgd import attacked

if TYPE_CHECKING:
    from collections.abc import Iterator

WRAPPERS = ("MultiAttack", "LGV")


def torchattack(
    name: str, logits_of: nn.Module, images: Tensor, labels: Tensor, *, seed: int, **settings: Any
) -> Tensor:
    """The images as `torchattacks.<name>` changes them; settings are those of its constructor.

    logits_of: maps (B, 3, H, W) pixels in [0, 1] to (B, K) logits; its parameters' device is used.
    images: (B, 3, H, W) in [0, 1].  labels: (B,).  The number of classes is taken from the logits.
    The same seed gives the same images; the global generators, each sub-module's train or eval mode
    and the weights' flags and gradients are as before, also after an exception.
    Raises ImportError without torchattacks and ValueError for an attack it does not have.
    """
    attack_class = find(name)
    accepted = inspect.signature(attack_class.__init__).parameters
    with attacked(logits_of), private_generators(seed, images.device):
        if "n_classes" in accepted:
            with torch.no_grad():
                settings.setdefault("n_classes", logits_of(images[:1]).shape[-1])
        if "seed" in accepted:
            settings["seed"] = seed
        model = NonNegativeLogits(logits_of) if name == "CW" else logits_of
        attack = attack_class(model, **settings)  # new each time: an exception flips its flags for good
        with torch.enable_grad():
            return attack(images.detach(), labels).detach()


def find(name: str) -> Any:
    """The class of an attack, by its name in torchattacks."""
    try:
        import torchattacks
    except ImportError as error:
        raise ImportError(
            "torchattacks is not installed; it is the optional extra `attacks`, and its pin of requests "
            "is best not resolved: pip install --no-deps torchattacks==3.5.1"
        ) from error
    names = [n for n in torchattacks.__all__ if n not in WRAPPERS]
    if name in names:
        return getattr(torchattacks, name)
    same = {n.lower(): n for n in names}
    close = difflib.get_close_matches(name.lower(), same, n=3)
    hint = f"; did you mean {' or '.join(same[n] for n in close)}?" if close else ""
    raise ValueError(f"torchattacks has no attack {name!r}{hint} (known: {', '.join(sorted(names))})")


@contextmanager
def private_generators(seed: int, device: torch.device) -> Iterator[None]:
    """Inside, torch's and numpy's global generators start from `seed`; afterwards they are as before."""
    state = np.random.get_state()
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        np.random.seed(seed % 2**32)
        try:
            yield
        finally:
            np.random.set_state(state)


class NonNegativeLogits(nn.Module):
    """The same logits but for a constant per image, so that none is negative."""

    def __init__(self, logits_of: nn.Module) -> None:
        super().__init__()
        self.logits_of = logits_of

    def forward(self, pixels: Tensor) -> Tensor:
        logits: Tensor = self.logits_of(pixels)
        return logits - logits.detach().amin(-1, keepdim=True)
