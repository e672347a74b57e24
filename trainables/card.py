"""The model card of an exported model: Hugging Face's front matter, then plain text."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import yaml

from trainables.attacks.config import as_fraction

if TYPE_CHECKING:
    from collections.abc import Iterator

    from trainables.attacks.config import AttackConfig
    from trainables.config import TrialConfig
    from trainables.zoo_config import ZooConfig

METRICS = ("clean_accuracy", "robust_accuracy", "clean_ece", "robust_ece", "clean_nll", "robust_nll")
STAGES = {
    "validation": "Validation images, as the search saw them",
    "final": "Validation images, under the final attack",
    "test": "Test images",
}
"""How it was measured, see `sweeper.run.Stage`."""
SHOWN = 5
"""Prompts that are listed."""


def card(config: TrialConfig, origin: dict[str, Any]) -> str:
    """README.md of an export. origin: the content of its sweep.json, see `export.export`."""
    title = f"{config.model.name.rsplit('/', 1)[-1]} fine-tuned with {origin['method']}"
    sections = [
        f"# {title}",
        "A CLIP that was fine-tuned to withstand adversarial images, by clip-sweeper: trial "
        f"{origin['trial']} of the sweep {origin['run']}{membership(origin)}.",
        "## How to load it\n\n" + LOADING,
        "## Method and configuration\n\n" + method(origin),
        "## Data\n\n" + data(origin),
        "## Attack in training\n\n" + attack(config.attack),
        "## Metrics\n\n" + metrics(origin),
        f"## Seeds and versions\n\nTraining seed {origin['seed']}, search seed {origin['search_seed']}. "
        + versions(origin),
        f"## Licence\n\nOf the weights that training started from: {origin['licence']['text']}.",
    ]
    return whole(front_matter(origin), sections)


def card_as_it_is(config: ZooConfig, origin: dict[str, Any]) -> str:
    """The same of a model that nothing was trained of."""
    weights = f" ({config.model.pretrained})" if config.model.pretrained else ""
    sections = [
        f"# {config.model.name.rsplit('/', 1)[-1]}{weights}",
        "A CLIP as it is, measured by clip-sweeper: trial "
        f"{origin['trial']} of the sweep {origin['run']}{membership(origin)}. Training source: "
        f"{config.method.name}.",
        "## How to load it\n\n" + LOADING,
        "## Data\n\n" + measured_on(origin),
        "## Metrics\n\n" + metrics(origin),
        "## Versions\n\n" + versions(origin),
        f"## Licence\n\nOf the weights: {origin['licence']['text']}.",
    ]
    head = front_matter(origin)
    head.pop("base_model_relation", None)
    return whole(head, sections)


def whole(head: dict[str, Any], sections: list[str]) -> str:
    return f"---\n{as_yaml(head)}---\n\n" + "\n\n".join(sections) + "\n"


def versions(origin: dict[str, Any]) -> str:
    return ", ".join(f"{name} {version}" for name, version in origin["versions"].items()) + "."


LOADING = """\
```python
import open_clip

model, _, preprocess = open_clip.create_model_and_transforms("local-dir:FOLDER")
tokenizer = open_clip.get_tokenizer("local-dir:FOLDER")
```

FOLDER is the folder of this file."""


def front_matter(origin: dict[str, Any]) -> dict[str, Any]:
    base, licence = origin["base_model"]["hub"], origin["licence"]["identifier"]
    head: dict[str, Any] = {"license": licence}
    if licence == "other" and base:
        head |= {"license_name": "of-the-base-model", "license_link": f"https://huggingface.co/{base}"}
    head |= {
        "library_name": "open_clip",
        "pipeline_tag": "zero-shot-image-classification",
        "tags": ["clip", "adversarial-robustness", "calibration", "clip-sweeper"],
    }
    return head | ({"base_model": base, "base_model_relation": "finetune"} if base else {})


def membership(origin: dict[str, Any]) -> str:
    if not origin["pareto"]:
        return ", not a member of its Pareto set"
    ways = [f"{way} {', '.join(names)}" for way, names in origin["objectives"].items() if names]
    return f", a member of its Pareto set ({'; '.join(ways)}; chosen on validation images)"


def method(origin: dict[str, Any]) -> str:
    configuration = f"```yaml\n{as_yaml(origin['config'])}```"
    return (
        f"Objective `{origin['method']}`, after epoch {origin['epoch']} of {origin['config']['epochs']}, "
        f"seed {origin['seed']}. The whole configuration of the trial:\n\n{configuration}"
    )


def data(origin: dict[str, Any]) -> str:
    of = origin["training_set"]
    prompts = ", ".join(f"`{template}`" for template in of["templates"][:SHOWN])
    more = f" and {len(of['templates']) - SHOWN} more" if len(of["templates"]) > SHOWN else ""
    return (
        f"Trained on {of['images']} images of {of['classes']} classes ({of['origin']} of {of['set']}), "
        f"prompts {prompts}{more}. {measured_on(origin)}"
    )


def measured_on(origin: dict[str, Any]) -> str:
    lines = "\n".join(
        f"* {stage}: {of['images']} images, {of['origin']} of {of['set']}"
        for stage in STAGES
        for of in origin["data"][stage]
    )
    return f"Measured on the following; the first set is the in-distribution one.\n\n{lines}"


def attack(config: AttackConfig) -> str:
    momentum = f", momentum {config.momentum:g}" if config.momentum else ""
    size = "the data set's own size" if config.at == "native" else "the model's input size"
    return (
        f"PGD, {config.steps} steps of {as_fraction(config.step)}, in the {config.norm} ball of radius "
        f"{as_fraction(config.epsilon)} around [0, 1] pixels at {size}{momentum}."
    )


def metrics(origin: dict[str, Any]) -> str:
    """A table for each stage, the untrained model beside the fine-tuned one, and what the numbers are."""
    objectives = [name for names in origin["objectives"].values() for name in names]
    names = list(dict.fromkeys([*objectives, *METRICS]))
    return "\n\n".join(
        part for stage in STAGES for part in of_stage(stage, origin[stage], origin["untrained"][stage], names)
    )


def of_stage(stage: str, own: dict[str, Any], untrained: dict[str, Any], names: list[str]) -> Iterator[str]:
    yield f"### {STAGES[stage]}\n\n{own['protocol']}. In brackets: 95 % intervals."
    if own["metrics"] is None:
        yield "Not measured: this is for the candidates of the Pareto set and the untrained model."
        return
    rows = ["| metric | this model | untrained |", "|---|---|---|"]
    for name in names:
        if name in own["metrics"]:
            rows.append(f"| {name} | {cell(own, name)} | {cell(untrained, name)} |")
    yield "\n".join(rows)


def cell(measured: dict[str, Any], name: str) -> str:
    """`0.4500 [0.402, 0.499]`; `-` where it was not measured."""
    value = (measured["metrics"] or {}).get(name)
    if value is None:
        return "-"
    interval = (measured["intervals"] or {}).get(name)
    return f"{value:.4f}" + (f" [{interval[0]:.3f}, {interval[1]:.3f}]" if interval else "")


def as_yaml(value: Any) -> str:
    return yaml.safe_dump(value, sort_keys=False, allow_unicode=True, width=100)
