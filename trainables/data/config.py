"""The keys under `trial.data:`: which sets, in which words their classes are asked for. Imports no torch."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, Union

from pydantic import AfterValidator, Field, PositiveInt, model_validator

from trainables.alterations.names import ALTERATIONS, SEVERITIES
from trainables.data.names import ALIASES, NAMES, OUTSIDE, Factor
from trainables.errors import did_you_mean
from trainables.settings import Settings

OWN_TEMPLATES = "clip_benchmark"
PROMPT = "This is a photo of a {}"
"""TeCoA's prompt, which nearly all who fine-tune adversarially have kept."""
PLACEHOLDERS = ("{}", "{c}")

AbsolutePath = Annotated[Path, AfterValidator(lambda path: path.expanduser().absolute())]


def known_set(name: str) -> str:
    """The name as tables show it, of a name that clip_benchmark knows too."""
    name = ALIASES.get(name, name)
    if name not in NAMES:
        hint = did_you_mean(name, [*NAMES, *ALIASES])
        raise ValueError(
            f"unknown data set {name!r}{hint} (known: {', '.join(NAMES)}; or image_folder, webdataset or "
            "huggingface: PATH)"
        )
    return name


def measured_set(name: str) -> str:
    """The same, of a set that has classes."""
    name = known_set(name)
    if name in OUTSIDE:
        raise ValueError(
            f"{name!r} has no classes to be measured on: it belongs under `ood`, whose images are scored and "
            "not classified"
        )
    return name


def known_alteration(name: str) -> str:
    if name not in ALTERATIONS:
        hint = did_you_mean(name, ALTERATIONS)
        raise ValueError(f"unknown alteration {name!r}{hint} (known: {', '.join(ALTERATIONS)})")
    return name


def check_template(template: str) -> str:
    if sum(map(template.count, PLACEHOLDERS)) != 1:
        raise ValueError(f"{template!r}: a prompt needs exactly one placeholder, {{}} or {{c}}")
    return template


def templates_or_own(value: str | list[str]) -> str | list[str]:
    for template in [value] if isinstance(value, str) else value:
        if value != OWN_TEMPLATES:
            check_template(template)
    return value


KnownSet = Annotated[str, AfterValidator(measured_set)]
ScoredSet = Annotated[str, AfterValidator(known_set)]
Altered = Annotated[str, AfterValidator(known_alteration)]
Severity = Annotated[int, Field(ge=min(SEVERITIES), le=max(SEVERITIES))]
Prompt = Annotated[Union[str, list[str]], AfterValidator(templates_or_own)]


class DataSet(Settings):
    """A data set of one's own, or a known one asked for in other words. One of the first four keys.

    `image_folder`: one sub-folder of images per class. With `train/` and `test/` (or `val/`) in it those
    are the splits, with all three `val/` is the validation split.
    `webdataset`: `train/` and `test/` with shards 0.tar, 1.tar, ... as clip_benchmark lays them out.
    `huggingface`: a data set of the `datasets` library, as its `save_to_disk` wrote it.
    A set without a test split gives a fixed 20 % of its images for it.
    """

    dataset: KnownSet | None = Field(None, description="A known data set.")
    factor: Factor | None = Field(
        None,
        description="Of `imagenet1k`: only the images that ImageNet-X says differ in this from what is "
        "typical of their class.",
    )
    image_folder: AbsolutePath | None = Field(
        None,
        description="A folder with one sub-folder of images per class, or with `train/`, `val/`, `test/`.",
    )
    webdataset: AbsolutePath | None = Field(
        None, description="WebDataset shards, as clip_benchmark has them."
    )
    huggingface: AbsolutePath | None = Field(
        None, description="What `save_to_disk` of the library `datasets` wrote."
    )
    image_column: str | None = Field(None, description="Of `huggingface`, if several have images.")
    label_column: str | None = Field(None, description="Of `huggingface`, if several have classes.")
    altered: Altered | None = Field(
        None,
        description="Its images under a common corruption or with a visual factor changed, as `fog` or "
        "`pose`: to be measured, not trained on.",
    )
    severity: Severity = Field(3, description="Of `altered`, 1 to 5.")
    name: str | None = Field(None, description="Name in tables; the folder's name by default.")
    classes: AbsolutePath | None = Field(
        None,
        description="File of class names in place of the set's own: text, one in a line in the order of the "
        "labels, or JSON, a list or an object from folder to name.",
    )
    templates: AbsolutePath | list[str] | None = Field(
        None,
        description="Prompts of this set in place of `prompt`: a list, or a text file, one in a line.",
    )

    @model_validator(mode="after")
    def is_one_set(self) -> DataSet:
        given = [key for key in SOURCES if getattr(self, key) is not None]
        if len(given) != 1:
            found = " and ".join(given) or "none"
            raise ValueError(f"expected one of {', '.join(SOURCES)}, got {found}")
        if (self.image_column or self.label_column) and not self.huggingface:
            raise ValueError("image_column and label_column are those of `huggingface` alone")
        if self.factor and self.dataset != "imagenet1k":
            raise ValueError("factor is one of `dataset: imagenet1k` alone")
        if isinstance(self.templates, list):
            templates_or_own(self.templates)
        return self

    @property
    def folder(self) -> Path | None:
        return self.image_folder or self.webdataset or self.huggingface

    @property
    def images(self) -> str:
        """Which images these are, whatever their classes and prompts are called."""
        return f"{self.dataset or self.folder}{self.variant}"

    @property
    def variant(self) -> str:
        """What of the set these are, as it stands behind its name."""
        altered = f"-{self.altered}-{self.severity}" if self.altered else ""
        return f"-{self.factor}{altered}" if self.factor else altered

    @property
    def plain(self) -> DataSet:
        """The set, not altered."""
        if not self.altered:
            return self
        return self.model_copy(update={"altered": None, "severity": 3, "name": None})


class OutsideSet(DataSet):
    """Images that are scored and not classified: any known set, or one's own. A name alone will do.

    `image_folder`: all images in the folder and below it, whatever its sub-folders are called; with `val/`
    and `test/` in it those are the splits.
    """

    dataset: ScoredSet | None = Field(None, description="A known data set.")

    @model_validator(mode="before")
    @classmethod
    def by_name_alone(cls, value: Any) -> Any:
        return {"dataset": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def is_not_classified(self) -> OutsideSet:
        if self.classes or self.templates:
            raise ValueError("images that are scored and not classified have no `classes` and `templates`")
        return self


SOURCES = ("dataset", "image_folder", "webdataset", "huggingface")
DataSetConfig = Union[KnownSet, DataSet]


def as_data_set(config: str | DataSet) -> DataSet:
    if isinstance(config, DataSet):
        return config
    return OutsideSet(dataset=config) if config in OUTSIDE else DataSet(dataset=config)


def set_name(config: str | DataSet) -> str:
    """The name of a data set in tables and metrics."""
    data = as_data_set(config)
    scored = isinstance(data, OutsideSet) and data.dataset not in OUTSIDE  # it may be classified as well
    own = data.dataset or (data.folder or Path()).resolve().name
    return data.name or f"{own}{data.variant}{'-ood' if scored else ''}"


class DataConfig(Settings):
    """What is trained on, and on which sets every epoch is evaluated."""

    train: DataSetConfig = Field("fashion-mnist-8k", description="Data set trained on.")
    evaluate: list[DataSetConfig] = Field(
        default_factory=list,
        description="Sets evaluated; the first is the in-distribution one, the others measure "
        "zero-shot transfer. Empty: the training set alone.",
    )
    images: PositiveInt | None = Field(None, description="Training images used; all by default.")
    prompt: Prompt = Field(
        PROMPT,
        description="Template, or a list of them whose texts are averaged; {} or {c} is the class name. "
        f"`{OWN_TEMPLATES}`: each set's own, as that tool has them.",
    )
    augment: bool = Field(False, description="RandomResizedCrop(0.9, 1), as CaRot trains.")
    decode: Literal["auto", "once", "always"] = Field(
        "auto",
        description="`once` per machine, into a file that all trials share, or `always` when an image is "
        "wanted. `auto`: once, if the file takes less than half of the space that is free.",
    )

    @model_validator(mode="after")
    def sets_have_own_names(self) -> DataConfig:
        names = [set_name(config) for config in self.evaluated]
        if len(set(names)) < len(names):
            raise ValueError(f"evaluate lists a name twice: {', '.join(names)}")
        return self

    @model_validator(mode="after")
    def trains_on_images_as_they_are(self) -> DataConfig:
        if as_data_set(self.train).altered:
            raise ValueError(f"{set_name(self.train)} is altered: it can be measured, not trained on")
        return self

    @property
    def evaluated(self) -> list[str | DataSet]:
        return self.evaluate or [self.train]
