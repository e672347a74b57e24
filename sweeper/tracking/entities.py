"""Images as MLflow's data sets, and the Pareto set as its models.

A data set has our digest of its images. A model is a trial after an epoch; its weights stay in the run
folder, so MLflow calls it external. What `sweeper export --register` uploads is another one, with its files.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from sweeper.redact import redacted
from sweeper.tracking.ledger import SWEEP, TRIAL, Ledger
from sweeper.trial import Point

CONTEXT = {"train": "training", "validation": "validation", "test": "test"}
"""What MLflow calls a split."""
FOLDERS = ("image_folder", "webdataset", "huggingface")
DIGEST = 36
"""Letters that MLflow has room for."""
EXTERNAL = "mlflow.model.isExternal"
NOT_FOUND = 404


def data_sets(sets: Iterable[Mapping[str, Any]], config: Mapping[str, Any]) -> list[Any]:
    """As MLflow has them. sets: what a trial or a measurement recorded of its images, by split and set.
    config: the trial's, which says in which folders they are."""
    from mlflow.entities import Dataset, DatasetInput, InputTag

    found, folders = [], dict(_folders(config.get("data", {})))
    for of in sets:
        place = folders.get(of["set"])
        height, width = of.get("size", (None, None))
        size = {"num_rows": of["images"], "classes": of.get("classes"), "height": height, "width": width}
        profile = size | {"origin": of.get("origin")}
        dataset = Dataset(
            name=of["set"],
            digest=_digest(of),
            source_type="local" if place else "clip-sweeper",
            source=json.dumps({"uri": redacted(place or of["set"])}),
            schema=json.dumps({"mlflow_colspec": [_column("image", "binary"), _column("label", "long")]}),
            profile=json.dumps({key: value for key, value in profile.items() if value is not None}),
        )
        context = CONTEXT.get(of.get("split", ""))
        found.append(DatasetInput(dataset, [InputTag("mlflow.data.context", context)] if context else []))
    return found


def of_trial(epoch: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """What an epoch recorded of the images that it was trained and measured on."""
    return [*([epoch["training_set"]] if "training_set" in epoch else []), *epoch.get("sets", [])]


def _column(name: str, kind: str) -> dict[str, Any]:
    return {"name": name, "type": kind, "required": True}


def _digest(of: Mapping[str, Any]) -> str:
    """Earlier versions recorded none."""
    known = of.get("digest") or hashlib.sha256(json.dumps(of, sort_keys=True).encode()).hexdigest()[:16]
    return str(known)[:DIGEST]


def _folders(data: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Those of data sets of one's own, by name."""
    for each in (data.get("train"), *data.get("evaluate", [])):
        if isinstance(each, Mapping):
            folder = next((str(each[key]) for key in FOLDERS if each.get(key)), None)
            if folder is not None:
                yield each.get("name") or folder.rstrip("/").rpartition("/")[2], folder


class Models:
    """MLflow's models of a sweep: what was on the front at the end of it, or of an earlier end."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger, self.client = ledger, ledger.client
        self.supported = True
        self.known: dict[str, Any] = {}
        self._find()

    def _find(self) -> None:
        """Those that were made here. Of two that are one point's, made by a request whose answer was lost,
        one is deleted. A server of MLflow 2 has none."""
        from mlflow.exceptions import MlflowException

        try:
            found = [*self._search()]
        except MlflowException as error:
            if error.get_http_status_code() != NOT_FOUND:
                raise
            self.supported, found = False, []
        for model in sorted(found, key=lambda model: (model.status != "READY", model.creation_timestamp)):
            point = f"{model.tags.get(TRIAL)}@{model.tags.get('epoch')}"
            if self.known.setdefault(point, model) is not model:
                self.client.delete_logged_model(model.model_id)

    def _search(self) -> Iterator[Any]:
        token = None
        while True:
            page = self.client.search_logged_models(
                [self.ledger.experiment], f"tags.{SWEEP} = '{self.ledger.run.id}'", page_token=token
            )
            yield from (model for model in page if EXTERNAL in model.tags)
            token = page.token
            if not token:
                return

    def publish(self, point: Point) -> str | None:
        """The ID of a point's model, which is made if need be, and belongs to the trial's run."""
        from mlflow.entities import LoggedModelOutput, LoggedModelStatus

        if not self.supported:
            return None
        model, sent = self.known.get(point.id), self.ledger.sent[point.trial.id]
        made = model is None
        if model is None:
            model = self.known[point.id] = self.client.create_logged_model(
                self.ledger.experiment, name=point.id, source_run_id=sent.run_id, model_type="clip",
                tags=self._tags(point), params=_parameters(point),
            )  # fmt: skip
        if model.status != LoggedModelStatus.READY:
            if made or not self._is_output(sent.run_id, model.model_id):
                self.client.log_outputs(sent.run_id, [LoggedModelOutput(model.model_id, point.epoch)])
            self.client.finalize_logged_model(model.model_id, LoggedModelStatus.READY)
        self._mark(model, "true")
        return str(model.model_id)

    def retire(self, front: Iterable[str]) -> None:
        """Says of the models that are not on the front any more, whose points are given, that they aren't."""
        for point in self.known.keys() - set(front):
            self._mark(self.known[point], "false")

    def _mark(self, model: Any, pareto: str) -> None:
        if model.tags.get("pareto") != pareto:
            self.client.set_logged_model_tags(model.model_id, {"pareto": pareto})

    def _is_output(self, run: str, model: str) -> bool:
        """MLflow takes it once."""
        outputs = self.client.get_run(run).outputs
        return any(each.model_id == model for each in (outputs.model_outputs if outputs else []))

    def _tags(self, point: Point) -> dict[str, str]:
        run = self.ledger.run
        return {
            SWEEP: run.id,
            TRIAL: point.trial.id,
            "epoch": str(point.epoch),
            "method": point.trial.method,
            "pareto": "true",
            "weights": redacted(f"{run}/{point.weights.relative_to(run.path)}"),
            "export": f"sweeper export {run.name} --trial {point.id}",
            EXTERNAL: "true",
        }


def _parameters(point: Point) -> dict[str, str]:
    """What was searched."""
    return {"method": point.trial.method} | {name: str(value) for name, value in point.trial.drawn.items()}
