"""The attacks of torchattacks (Kim, arXiv 2010.01950), an optional extra, made safe to call.

What torchattacks 3.5.1 does to its caller is undone here: it leaves the whole model in train mode,
collects weight gradients, reseeds the global generators (APGD, FAB, Square), keeps state between
calls, assumes ten classes, and fails with an index error where there are too few. What it computes
is left as it is, except that `CW` gets non-negative logits, without which it is wrong (its issue
184). Mind two things in its results: the APGD family, FAB and Square return the *clean* image where
they did not succeed, and its `AutoAttack` (10 steps, K - 1 targets, at least four classes) is not
what the literature means by that name.
"""

from __future__ import annotations

import difflib
import inspect
import random
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from trainables.attacks.pgd import attacked
from trainables.errors import AttackError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

WRAPPERS = ("MultiAttack", "LGV")

STUMBLES = (AttributeError, IndexError, KeyError, NameError, TypeError, ValueError)
"""What torchattacks raises for settings that it does not check."""

FEWEST_CLASSES = {"APGDT": 4, "AutoAttack": 4, "JSMA": 10}
"""The targeted DLR loss looks at the fourth largest logit; JSMA aims at class (label + 1) mod 10."""


def torchattack(
    name: str, logits_of: nn.Module, images: Tensor, labels: Tensor, *, seed: int, **settings: Any
) -> Tensor:
    """The images as `torchattacks.<name>` changes them; settings are those of its constructor.

    logits_of: maps (B, 3, H, W) pixels in [0, 1] to (B, K) logits; its parameters' device is used.
    images: (B, 3, H, W) in [0, 1].  labels: (B,).  The number of classes is taken from the logits.
    The same seed gives the same images; the global generators, each sub-module's train or eval mode
    and the weights' flags and gradients are as before, also after an exception.
    Raises ImportError without torchattacks, and AttackError for an attack it does not have, a setting
    the attack does not have or fails with, or too few classes for it.
    """
    attack_class, accepted = find(name), check_settings(name, settings)
    with attacked(logits_of), private_generators(seed):
        with torch.no_grad():
            classes = logits_of(images[:1]).shape[-1]
        check_classes(name, classes, settings)
        if "n_classes" in accepted:
            settings.setdefault("n_classes", classes)
        if "seed" in inspect.signature(attack_class.__init__).parameters:
            settings["seed"] = seed
        model = FloatLogits(logits_of, non_negative=name == "CW")
        try:
            attack = attack_class(model, **settings)  # new each time: an exception flips its flags for good
            with torch.enable_grad():
                # contiguous: several attacks `view` their images, which channels-last ones don't allow
                return attack(images.detach().contiguous(), labels).detach()
        except STUMBLES as error:
            reason = f"{type(error).__name__}: {error}"
            raise AttackError(
                f"torchattacks' {name} failed with its settings {settings} ({reason})"
            ) from error


def parameters(name: str) -> tuple[str, ...]:
    """The settings that `torchattack(name, ...)` takes, as its constructor names them.

    Raises as `torchattack` does for an unknown name.
    """
    signature = inspect.signature(find(name).__init__)
    return tuple(p for p in signature.parameters if p not in ("self", "model", "seed"))


def check_settings(name: str, settings: Iterable[str]) -> tuple[str, ...]:
    """`parameters(name)`. Raises as `torchattack` does for an unknown name or setting."""
    accepted = parameters(name)
    unknown = [setting for setting in settings if setting not in accepted]
    if unknown:
        known = ", ".join(accepted) or "-"
        raise AttackError(f"torchattacks' {name} has no {unknown[0]!r} (it has: {known})")
    return accepted


def check_classes(name: str, classes: int, settings: dict[str, Any]) -> None:
    """Raises AttackError where torchattacks would look for a class that is not there."""
    needed = FEWEST_CLASSES.get(name, 3 if settings.get("loss") == "dlr" else 2)
    if classes < needed:
        raise AttackError(
            f"torchattacks' {name} needs at least {needed} classes, here are {classes}; "
            "the attack `standard` takes any number from 2"
        )


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
    raise AttackError(f"torchattacks has no attack {name!r}{hint} (known: {', '.join(sorted(names))})")


@contextmanager
def private_generators(seed: int) -> Iterator[None]:
    """Inside, the global generators of torch, numpy and Python start from `seed`; afterwards they are
    as before."""
    state, python_state = np.random.get_state(), random.getstate()
    # torch.manual_seed, which torchattacks calls too, seeds every CUDA device, used here or not
    devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()
    with torch.random.fork_rng(devices):
        torch.manual_seed(seed)
        np.random.seed(seed % 2**32)
        random.seed(seed)
        try:
            yield
        finally:
            np.random.set_state(state)
            random.setstate(python_state)


class FloatLogits(nn.Module):
    """The same logits in float32, which Square insists on; or but for a constant per image, so that
    none is negative."""

    def __init__(self, logits_of: nn.Module, *, non_negative: bool) -> None:
        super().__init__()
        self.logits_of = logits_of
        self.non_negative = non_negative

    def forward(self, pixels: Tensor) -> Tensor:
        logits: Tensor = self.logits_of(pixels).float()
        return logits - logits.detach().amin(-1, keepdim=True) if self.non_negative else logits
