"""Exported models in MLflow's model registry.

    model = mlflow.pyfunc.load_model("models:/NAME/1")
    model.predict(pd.DataFrame({"image": [Path("a.png").read_bytes()]}), params={"classes": ["cat", "dog"]})

gives a table of probabilities with a column per class. The image column is binary, which MLflow's server
takes as base64; `classes` and `templates` are by default those of the training set.
"""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

from sweeper import pages
from sweeper.errors import UserError
from sweeper.redact import one_line, redacted
from sweeper.run import Run
from sweeper.tracking import Mirror, tracking_uri
from sweeper.trial import Point

PACKAGES = ("mlflow", "numpy", "open_clip_torch", "pandas", "pillow", "torch", "torchvision", "transformers")
"""What a served model needs, pinned to what is installed here; transformers where it has the tokenizer."""
GRAY = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAgAAAAICAAAAADhZOFXAAAAEElEQVR4nGNsYIAAJgaKGAAmCACQXTClHgAAAABJRU5ErkJggg=="
)
"""A grey image of 8 x 8 pixels as a PNG file."""


def register(run: Run, point: Point, folder: Path, name: str) -> str:
    """Registers an exported folder under `name` with the server of the run and returns the URI of the new
    version. It belongs to the trial's run in MLflow if there is one.

    Raises UserError if MLflow can't be reached or refuses.
    """
    try:
        return _register(run, point, folder, name)
    except Exception as error:  # whatever a server or its client raises
        server, reason = redacted(tracking_uri(run)), one_line(error)
        raise UserError(
            f"{point.id} can't be registered with MLflow at {server}: {reason}", pages.MLFLOW
        ) from error


def _register(run: Run, point: Point, folder: Path, name: str) -> str:
    import mlflow
    from mlflow.models import Model

    origin = json.loads((folder / "sweep.json").read_text(encoding="utf-8"))
    mirror = Mirror(run)
    with tracking_at(mirror.uri):
        mlflow.set_experiment(experiment_id=mirror.experiment)
        logged = Model.log(
            artifact_path=None,
            name="model",
            flavor=mlflow.pyfunc,
            run_id=mirror.ids.get(point.trial.id),
            registered_model_name=name,
            python_model=str(run.spec.trainable.serving),
            artifacts={"export": str(folder.absolute())},
            signature=signature(origin),
            input_example=example(origin),
            pip_requirements=requirements(folder),
            tags={
                "sweep_id": run.id,
                "trial_id": point.trial.id,
                "epoch": point.epoch,
                "method": origin["method"],
            },
        )
    return f"models:/{name}/{logged.registered_model_version}"


@contextmanager
def tracking_at(uri: str) -> Iterator[None]:
    """Inside, MLflow's own functions talk to `uri`, which they keep in the environment."""
    import mlflow

    before = os.environ.get("MLFLOW_TRACKING_URI")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    mlflow.set_tracking_uri(uri)
    try:
        yield
    finally:
        mlflow.set_tracking_uri(None)
        if before is not None:
            os.environ["MLFLOW_TRACKING_URI"] = before


def signature(origin: dict[str, Any]) -> Any:
    """The bytes of image files in, class names and prompt as parameters. The output is not part of it: its
    columns are the class names."""
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, DataType, ParamSchema, ParamSpec, Schema

    return ModelSignature(
        inputs=Schema([ColSpec(DataType.binary, "image")]),
        params=ParamSchema(
            [
                ParamSpec("classes", DataType.string, origin["classes"], shape=(-1,)),
                ParamSpec("templates", DataType.string, origin["templates"], shape=(-1,)),
            ]
        ),
    )


def example(origin: dict[str, Any]) -> Any:
    import pandas as pd

    return pd.DataFrame({"image": [GRAY]}), {"classes": origin["classes"], "templates": origin["templates"]}


def requirements(folder: Path) -> list[str]:
    own_tokenizer = not (folder / "tokenizer_config.json").is_file()
    packages = [name for name in PACKAGES if not (own_tokenizer and name == "transformers")]
    return [f"{name}=={version(name).partition('+')[0]}" for name in packages]
