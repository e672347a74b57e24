"""What a method is: typed hyper-parameters and a loss on lazily computed views of a batch.

A method's file holds a pure loss function of tensors, where the paper is checked against the code,
and a small class that says which tensors it wants. Only tensor methods are used, so that the
hyper-parameters can be validated without importing torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Protocol, TypeVar, get_args

from pydantic import BaseModel, ConfigDict

from trainables.errors import MethodError

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

LossParts = dict[str, "Tensor"]
"""Named terms of a loss, weights applied: (B,) per image, or a scalar where a term is one number
for the batch. The loss is the sum of their means."""


class View(Protocol):
    """One model on one version of the batch. Each property is computed once, when first asked for."""

    @property
    def logits(self) -> Tensor:
        """(B, K): exp(logit_scale) times the cosines."""

    @property
    def cosines(self) -> Tensor:
        """(B, K) float32 cosines of image and class-text features."""

    @property
    def features(self) -> Tensor:
        """(B, D) image features, unnormalised."""

    @property
    def contrast(self) -> Tensor:
        """(B, B) scaled cosines of the images (rows) and their own captions (columns)."""

    @property
    def tokens(self) -> Tensor:
        """(B, 1 + P, D) unnormalised features of the class token and of the P patches, row by row."""

    @property
    def label_text(self) -> Tensor:
        """(B, D) unit text features of the images' own classes."""

    def derived(self, name: str, compute: Callable[[View], Tensor]) -> Tensor:
        """`compute(self)`, (B, ...); where the same images come again, it is computed once for each
        image and kept under `name`."""


class Pair(Protocol):
    """One model on both versions of the batch."""

    @property
    def clean(self) -> View: ...
    @property
    def adversarial(self) -> View: ...


class Views(Pair, Protocol):
    """All a loss may ask for about one batch; what it does not ask for is never computed.

    `clean` and `adversarial` are the trained model's, with gradient; all others receive none.
    """

    labels: Tensor

    @property
    def patch_grid(self) -> tuple[int, int]:
        """Rows and columns of the patches of `View.tokens`."""

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width of the image tower's input."""

    @property
    def detached(self) -> Pair:
        """The trained model itself, without gradient."""

    @property
    def frozen(self) -> Pair:
        """The original, pre-trained model."""

    @property
    def average(self) -> Pair:
        """The exponential moving average of the trained model."""

    @property
    def projections(self) -> tuple[Tensor, Tensor]:
        """Visual (D_v, D) and text (D_t, D) projection weights of the trained model."""


class Method(BaseModel):
    """Base of all objectives. Subclasses add `name: Literal[...]`, typed fields and `loss`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    trains_text: ClassVar[bool] = False
    """The publication trains both towers and the logit scale, the text tower through captions; by default
    the image tower alone. A text tower trained otherwise is trained through the class texts."""

    needs_text: ClassVar[bool] = True
    """Whether texts play a part in the loss."""

    name: str

    @property
    def couples_images(self) -> bool:
        """Whether an image's loss depends on the other images of the batch, or on their number: it can't
        be computed from a part of the batch then."""
        return False

    def loss(self, views: Views) -> LossParts:
        raise NotImplementedError(f"{type(self).__name__}.loss")

    def attack_loss(self, attacked: View, views: Views) -> Tensor:
        """(B,) what the inner attack ascends for each image: the cross-entropy by default.

        attacked: the trained model on the images as they are while under attack; of `views`, all but
        `adversarial` is known by then, and none has a gradient.
        """
        return cross_entropy(attacked.logits, views.labels)

    def averaging(self, step: int, total_steps: int) -> float | None:
        """Momentum with which the moving average is updated after `step`; None: no update."""
        return None

    def check_attack(self, attack: Any) -> None:
        """Raises ValueError if the method can't be trained with this attack configuration."""
        if attack.epsilon == 0:
            raise ValueError(f"{self.name} trains on adversarial images: attack.epsilon must be above 0")


METHODS: dict[str, type[Method]] = {}
"""All objectives by name."""

M = TypeVar("M", bound=type[Method])


def register(name: str) -> Callable[[M], M]:
    """Makes a method known under its name, which is also the value of its `name` field. Raises MethodError if
    another one has it, or the field does not."""

    def add(cls: M) -> M:
        own: type[Method] = cls
        field = own.model_fields["name"]
        if get_args(field.annotation) != (name,) or field.default != name:
            raise MethodError(f'{cls.__name__} needs the field `name: Literal["{name}"] = "{name}"`')
        if name in METHODS:
            raise MethodError(f"{cls.__module__}: {METHODS[name].__module__} has a method {name!r}, too")
        METHODS[name] = cls
        return cls

    return add


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """(B,) cross-entropy in nats of (B, K) logits, in float32 whatever the logits' precision."""
    return -logits.float().log_softmax(-1).gather(-1, labels[:, None]).squeeze(-1)


def kl_divergence(target: Tensor, logits: Tensor) -> Tensor:
    """(B,) KL(softmax(target) || softmax(logits)) in nats, in float32. Both (B, K)."""
    p, q = target.float().log_softmax(-1), logits.float().log_softmax(-1)
    return (p.exp() * (p - q)).sum(-1)


def soft_cross_entropy(target: Tensor, logits: Tensor) -> Tensor:
    """(B,) cross-entropy of softmax(logits) against softmax(target) in nats, in float32. Both (B, K)."""
    return -(target.float().softmax(-1) * logits.float().log_softmax(-1)).sum(-1)
