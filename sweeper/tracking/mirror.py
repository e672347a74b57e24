"""What is sent to MLflow of a run, and in which order."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path
from typing import Any

from sweeper.files import read_json
from sweeper.result import ranked_members
from sweeper.run import Run
from sweeper.tracking import notes, views
from sweeper.tracking.entities import Models, data_sets, of_trial
from sweeper.tracking.ledger import Ledger, Sent
from sweeper.tracking.links import Links
from sweeper.tracking.metrics import PROBABILITY, milliseconds, named, numbers, of_epoch, path
from sweeper.tree import walk
from sweeper.trial import BASELINE, SPLIT, Point, Stage, TrialRecord, read_trial

MEASURED: tuple[Stage, Stage] = ("final", "test")
Row = dict[str, Any]


class Mirror:
    """Delivers one run to one MLflow server or database.

    After an exception, another mirror is to be used: this one does not know what has arrived.
    """

    def __init__(self, run: Run) -> None:
        self.run = run
        self.ledger = Ledger(run)
        extended = len(run.about.get("extended", []))  # a run that was extended ends once more
        self.complete = f"after extension {extended}" if extended else "true"
        self.objectives = run.spec.file.pareto.metrics
        self.begun: set[int] = set()  # trials before `next` that are not complete
        self.next = 0
        self.twins: set[str] = set()  # those that were delivered whole
        with self.ledger.turn():
            pass

    @property
    def uri(self) -> str:
        return self.ledger.uri

    @property
    def experiment(self) -> str:
        return self.ledger.experiment

    @property
    def ids(self) -> dict[str, str]:
        """MLflow's runs by trial; the parent is that of ""."""
        return {trial: sent.run_id for trial, sent in self.ledger.sent.items()}

    def deliver(self) -> None:
        """Sends everything that MLflow does not have yet. Raises whatever MLflow does."""
        with self.ledger.turn() as others:
            if others:
                self.begun, self.next = set(), 0
            final = read_json(self.run.path / "pareto.json")  # written last, when the report is there too
            self._deliver_parent()
            self._deliver_baseline()
            for number in self._trials():
                self._deliver_trial(self.run.trial(number))
                if self.ledger.sent[self.run.trial_folder(number).name].complete:
                    self.begun.discard(number)
            for folder in sorted(self.run.path.glob("seeds/*/config.json")):
                self._deliver_twin(folder.parent)
            if final is not None:
                if self.ledger.sent[""].complete != self.complete:
                    self._deliver_result(final)
                self._links(final).write(self.uri)  # of the last server that it was delivered to

    def _trials(self) -> list[int]:
        """Those that may have something new: the ones that run, and the ones that were started since."""
        while ((folder := self.run.trial_folder(self.next)) / "config.json").exists():
            sent = self.ledger.sent.get(folder.name)
            if sent is None or not sent.complete:
                self.begun.add(self.next)
            self.next += 1
        return sorted(self.begun)

    @property
    def _created(self) -> int:
        """When the run was, in milliseconds."""
        return round(datetime.strptime(self.run.about["created"], "%Y%m%d-%H%M%S").timestamp() * 1000)

    def _deliver_parent(self) -> None:
        run = self.run
        tags = {"kind": "sweep", notes.NOTE: notes.of_sweep(run)} if "" not in self.ledger.sent else {}
        sent = self.ledger.open("", run.name, tags, self._created)
        if sent.parameters == 0:
            sections = json.loads(run.spec.file.model_dump_json(include={"search", "pareto", "resources"}))
            settings = walk(sections) | walk({"evaluation": run.spec.evaluation, "final": run.spec.final})
            for name, value in views.tags(run, self._created).items():
                self.ledger.client.set_experiment_tag(self.experiment, name, value)
            self.ledger.upload(sent, run.path / "sweep.yaml")
            self.ledger.log(sent, parameters=settings)

    def _deliver_baseline(self) -> None:
        validation = self.run.measured(None, "validation")
        if validation is None:
            return
        tags = {"kind": "baseline", "method": "untrained"}
        sent = self.ledger.open(BASELINE, "untrained", tags, self._created)
        if sent.epochs == 0:
            base = self.run.spec.base_trial()
            self.ledger.inputs(sent, data_sets(validation.get("sets", []), base))
            metrics = named("validation", validation["metrics"], self.objectives) | {"epoch": 1}
            self.ledger.log(
                sent,
                parameters=walk(base["model"], "model"),
                metrics=numbers(metrics, step=0, file=self.run.baseline_file),
                tags={notes.NOTE: notes.of_baseline(self.run)},
            )
            sent.epochs = 1

    def _deliver_trial(self, trial: TrialRecord, tags: dict[str, str] | None = None) -> None:
        sent = self._open(trial, tags or {})
        if sent.parameters == 0:
            self.ledger.upload(sent, trial.folder / "config.json")
        new = trial.epochs[sent.epochs :]
        if new and sent.epochs == 0:
            self.ledger.inputs(sent, data_sets(of_trial(new[0]), trial.config))
        metrics = [each for epoch in new for each in of_epoch(trial.folder, epoch, self.objectives)]
        marks = {} if trial.status == "unfinished" else self._end(sent, trial)
        parameters = {"seed": trial.seed, **walk(trial.config)}
        self.ledger.log(sent, parameters=parameters, metrics=metrics, tags=marks)
        sent.epochs = max(sent.epochs, len(trial.epochs))
        sent.complete = marks.get("complete", "")

    def _open(self, trial: TrialRecord, tags: dict[str, str]) -> Sent:
        known = self.ledger.sent.get(trial.id)
        if known is not None:
            return known
        own = {"method": trial.method, "pareto": "false", notes.NOTE: notes.of_trial(self.run, trial)}
        began = milliseconds(trial.folder / "config.json")
        return self.ledger.open(trial.id, f"{trial.id} {trial.method}", own | tags, began)

    def _end(self, sent: Sent, trial: TrialRecord) -> dict[str, str]:
        """Sends what comes with the end of a trial, all but the tags, which are returned."""
        for point in trial.points:
            self._upload_records(sent, point.records, "records")
        ended = milliseconds(trial.folder / "status.json")
        self.ledger.end(sent, ended, failed=trial.status == "failed")
        reason = {"reason": trial.reason} if trial.reason else {}
        stopped = {"stopped_at": str(len(trial.epochs))} if trial.status == "stopped" else {}
        note = {notes.NOTE: notes.of_trial(self.run, trial)}
        return {"status": trial.status, **reason, **stopped, **note, "complete": "true"}

    def _deliver_twin(self, folder: Path) -> None:
        """A training with another seed. It may be made longer after it has ended, so that each mirror looks
        at it once."""
        if folder.name in self.twins:
            return
        twin = read_trial(folder)
        self._deliver_trial(twin, {"seed_of": self.run.trial_folder(twin.number).name})
        if twin.status != "unfinished":
            self.twins.add(folder.name)

    def _deliver_result(self, final: Row) -> None:
        """The Pareto set, and what was measured to find it. The parent's end comes last."""
        run, ledger, parent, links = self.run, self.ledger, self.ledger.sent[""], self._links(final)
        models = Models(ledger)
        ended = milliseconds(run.path / "pareto.json")
        for row in final["candidates"]:
            point = run.trial(int(row["trial"][1:])).point(row["epoch"])
            model = models.publish(point) if row["pareto"] else None
            self._deliver_measured(ledger.sent[point.trial.id], point, model)
            for twin in run.seeds(point.trial):
                for again in twin.points:
                    self._deliver_measured(ledger.sent[twin.id], again)
        models.retire(row["id"] for row in final["candidates"] if row["pareto"])
        self._deliver_front(final)
        self._deliver_measured(ledger.sent[BASELINE], None, tags={notes.NOTE: notes.of_baseline(run)})
        self._upload_records(ledger.sent[BASELINE], run.baseline_file, "records")
        ledger.end(ledger.sent[BASELINE], ended)
        for file in ("pareto.json", "sweep.yaml"):  # the latter is another one if the run was extended
            ledger.upload(parent, run.path / file)
        ledger.upload(parent, run.path / "report", "report")
        ledger.inputs(parent, self._all_data_sets())
        ledger.end(parent, ended)
        members = [row for row in final["candidates"] if row["pareto"]]
        count = {"trials": float(len(final["trials"])), "pareto_set": float(len(members))}
        marks = {notes.NOTE: notes.of_result(run, final, links), "complete": self.complete}
        ledger.log(parent, metrics=numbers(count, step=0, file=run.path / "pareto.json"), tags=marks)
        parent.complete = self.complete

    def _deliver_front(self, final: Row) -> None:
        """Which trials are on the front, and how probable that is. Before a run was extended, others may have
        been."""
        rows: dict[str, list[Row]] = {}
        for row in final["candidates"]:
            rows.setdefault(row["trial"], []).append(row)
        file = self.run.path / "pareto.json"
        for about in final["trials"]:
            sent, own = self.ledger.sent[about["id"]], rows.get(about["id"], [])
            chance, epochs = about["probability"], [row["epoch"] for row in own if row["pareto"]]
            tags = {
                "pareto": str(bool(epochs)).lower(),
                "pareto_epochs": ", ".join(map(str, epochs)),
                PROBABILITY: "" if chance is None else f"{chance:.4g}",
            }
            if not own and sent.front == tags:
                continue
            for plot in sorted((self.run.path / "report").glob(f"{about['id']}@*.png")):
                self.ledger.upload(sent, plot, "plots")
            trial = self.run.trial(int(about["id"][1:]))
            metrics = {} if chance is None else {PROBABILITY: chance}
            note = {notes.NOTE: notes.of_trial(self.run, trial, own)}
            self.ledger.log(sent, metrics=numbers(metrics, step=0, file=file), tags=note | tags)
            sent.front = tags

    def _deliver_measured(
        self,
        sent: Sent,
        point: Point | None,
        model: str | None = None,
        tags: dict[str, str] | None = None,
    ) -> None:
        """What `final` measured of a point, or of the untrained model, on either split. model: MLflow's ID of
        the point's."""
        step, name = (point.epoch, point.id) if point else (0, BASELINE)
        config = point.trial.config if point else self.run.spec.base_trial()
        metrics: list[Any] = []
        sets: list[Row] = []
        for stage in MEASURED:
            if (measured := self.run.measured(point, stage)) is not None:
                file = self.run.final_file(name, SPLIT[stage])
                own = named(stage, measured["metrics"], self.objectives)
                metrics += numbers(own, step=step, file=file, model=model, of_model=self._deciding(stage))
                sets += measured.get("sets", [])
                self._upload_records(sent, file, f"records/{stage}")
        self.ledger.inputs(sent, data_sets(sets, config))
        self.ledger.log(sent, metrics=metrics, tags=tags)

    def _deciding(self, stage: Stage) -> set[str]:
        return {path(stage, name) for name in self.run.spec.file.pareto.deciding}

    def _all_data_sets(self) -> list[Any]:
        """Those that trials were measured on in any stage."""
        sets = [of for stage in SPLIT for of in self.run.sets(stage)]
        return data_sets(sets, self.run.spec.base_trial())

    def _upload_records(self, sent: Sent, result: Path, folder: str) -> None:
        """The Parquet files that lie beside a result."""
        for file in sorted(result.parent.glob(f"{result.stem}*.parquet")):
            self.ledger.upload(sent, self.run.storage.fetch(file), folder)

    def _links(self, final: Row) -> Links:
        trials = dict.fromkeys(row["trial"] for row in ranked_members(final))
        ids = self.ids
        return Links(self.run, self.experiment, ids[""], [ids[trial] for trial in trials])
