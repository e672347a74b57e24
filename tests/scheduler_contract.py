"""What every order of trials and every early stopping by several objectives must obey.

A law is a function of what it examines, and fails with an AssertionError. All data are shuffled: on sorted
ones an order and its inverse look alike. To examine another implementation, pass every one of `RANKING`
a `Ranker`, and every one of `STOPPING` a `Make`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from sweeper import spec
from sweeper.spec import SweepSpec
from sweeper.trial import Decision, Metrics
from tests.sweeps import SMALL

Array = NDArray[np.float64]
Ranker = Callable[[Array, Array], NDArray[np.intp]]
"""(n, m) costs and (n,) violations -> (n,) positions, 0 for the best."""


class Scheduler(Protocol):
    """What `sweeper.halving.Halving` offers."""

    baseline: Metrics | None

    def record(self, trial: int, epoch: int, metrics: Metrics, *, last: bool = False) -> bool: ...


class Make(Protocol):
    """How a scheduler is made."""

    def __call__(
        self,
        sweep: SweepSpec,
        *,
        baseline: Metrics | None = ...,
        past: Iterable[Decision] = ...,
        log: Callable[[Decision], None] = ...,
    ) -> Scheduler: ...


def some_costs(rng: np.random.Generator, count: int = 40, objectives: int = 3) -> Array:
    """Distinct points, most of which are dominated."""
    return rng.random((count, objectives)) + 0.3 * rng.random((count, 1))


def some_violations(rng: np.random.Generator, count: int = 40) -> Array:
    """A third of the points are feasible, others break the constraints by the same amount."""
    return rng.integers(0, 3, count) / 2


# --- orders ---------------------------------------------------------------------------------------------


def every_position_is_taken_once(ranker: Ranker) -> None:
    rng = np.random.default_rng(0)
    for count in (2, 7, 40):
        positions = ranker(some_costs(rng, count), some_violations(rng, count))
        assert sorted(positions) == list(range(count))


def permuting_trials_permutes_ranks(ranker: Ranker) -> None:
    rng = np.random.default_rng(1)
    for violation in (np.zeros(40), some_violations(rng)):
        costs = some_costs(rng)
        positions = ranker(costs, violation)
        for _ in range(5):
            order = rng.permutation(40)
            assert (ranker(costs[order], violation[order]) == positions[order]).all()


def a_dominated_trial_never_outranks_its_dominator(ranker: Ranker) -> None:
    """On a coarse grid, where many are equal in some objectives."""
    rng = np.random.default_rng(2)
    for _ in range(5):
        costs, violation = rng.integers(0, 5, (30, 3)).astype(float), some_violations(rng, 30)
        positions = ranker(costs, violation)
        for i in range(30):
            for j in range(30):
                dominates = (costs[i] <= costs[j]).all() and (costs[i] < costs[j]).any()
                if violation[i] < violation[j] or (violation[i] == violation[j] and dominates):
                    assert positions[i] < positions[j]


def units_do_not_matter(ranker: Ranker) -> None:
    rng = np.random.default_rng(3)
    for objective in range(3):
        costs, scale = some_costs(rng), np.ones(3)
        scale[objective] = 1024
        assert (ranker(costs * scale, np.zeros(40)) == ranker(costs, np.zeros(40))).all()
        assert (ranker(costs * scale - 5 * scale, np.zeros(40)) == ranker(costs, np.zeros(40))).all()


def one_objective_is_sorting(ranker: Ranker) -> None:
    costs = np.random.default_rng(4).permutation(20)[:, None].astype(float)
    assert (ranker(costs, np.zeros(20)) == costs[:, 0]).all()


def a_newcomer_that_dominates_all_is_first(ranker: Ranker) -> None:
    costs = np.vstack([some_costs(np.random.default_rng(5)), np.full(3, -1.0)])
    assert ranker(costs, np.zeros(41))[-1] == 0
    assert ranker(-costs, np.zeros(41))[-1] == 40


def the_violation_decides_before_the_objectives(ranker: Ranker) -> None:
    rng = np.random.default_rng(6)
    costs, violation = some_costs(rng), rng.permutation(40).clip(min=9) - 9.0
    positions = ranker(costs, violation)
    assert (np.argsort(positions)[10:] == np.argsort(violation, kind="stable")[10:]).all()
    assert positions[violation == 0].max() == 9


def copies_come_after_the_rest_of_their_front(ranker: Ranker) -> None:
    rng = np.random.default_rng(7)
    ring = rng.dirichlet(np.ones(3), 10)  # on one front, as their sums are equal
    ring = np.round(ring * 64) / 64
    ring[:, 2] = 1 - ring[:, 0] - ring[:, 1]
    ring = np.unique(ring, axis=0)
    which = rng.permutation(np.repeat(np.arange(len(ring)), 2))
    positions = ranker(ring[which], np.zeros(len(which)))
    for point in range(len(ring)):
        first, second = sorted(positions[which == point])
        assert first < len(ring) <= second
    again = ranker(ring[which[::-1]], np.zeros(len(which)))[::-1]
    for point in range(len(ring)):
        assert sorted(positions[which == point]) == sorted(again[which == point])


def one_trial_and_none(ranker: Ranker) -> None:
    assert list(ranker(np.array([[3.0, 4.0]]), np.zeros(1))) == [0]
    assert list(ranker(np.empty((0, 2)), np.empty(0))) == []
    assert list(ranker(np.array([[np.nan, 4.0]]), np.zeros(1))) == [0]


def an_objective_in_which_all_are_equal_does_not_count(ranker: Ranker) -> None:
    rng = np.random.default_rng(8)
    costs = some_costs(rng, objectives=2)
    assert (ranker(np.insert(costs, 1, 7.0, axis=1), np.zeros(40)) == ranker(costs, np.zeros(40))).all()
    assert sorted(ranker(np.full((9, 2), 0.1), np.zeros(9))) == list(range(9))


def what_is_not_finite_comes_last_and_changes_nothing(ranker: Ranker) -> None:
    rng = np.random.default_rng(9)
    costs, violation = some_costs(rng), some_violations(rng)
    expected = ranker(costs, violation)
    for value in (np.nan, np.inf, -np.inf):
        broken = rng.permutation(44)[:4]
        kept = np.setdiff1d(np.arange(44), broken)
        both, excess = np.full((44, 3), 0.5), np.zeros(44)
        both[kept], excess[kept] = costs, violation
        both[broken, rng.integers(0, 3, 4)] = value
        positions = ranker(both, excess)
        assert (positions[kept] == expected).all()
        assert positions[broken].min() == 40


def the_global_generator_is_left_alone(ranker: Ranker) -> None:
    """With copies, between which a generator decides."""
    costs = np.random.default_rng(10).integers(0, 2, (30, 2)).astype(float)
    found = []
    for seed in range(3):
        np.random.seed(seed)
        before = np.random.get_state()[1:3]
        found.append(ranker(costs, np.zeros(30)).tolist())
        after = np.random.get_state()[1:3]
        assert before[1] == after[1]
        assert (before[0] == after[0]).all()
    assert found[0] == found[1] == found[2]


RANKING: list[Callable[[Ranker], None]] = [
    every_position_is_taken_once,
    permuting_trials_permutes_ranks,
    a_dominated_trial_never_outranks_its_dominator,
    units_do_not_matter,
    one_objective_is_sorting,
    a_newcomer_that_dominates_all_is_first,
    the_violation_decides_before_the_objectives,
    copies_come_after_the_rest_of_their_front,
    one_trial_and_none,
    an_objective_in_which_all_are_equal_does_not_count,
    what_is_not_finite_comes_last_and_changes_nothing,
    the_global_generator_is_left_alone,
]


# --- early stopping -------------------------------------------------------------------------------------

MAXIMIZE = "maximize: [robust_accuracy, clean_accuracy]"
MINIMIZE = "minimize: [robust_ece]"
CONSTRAINT = '  subject_to: {clean_accuracy: ">= 0.5 * baseline"}\n'
NAMES = ["robust_accuracy", "clean_accuracy", "robust_ece"]
SIGNS = np.array([-1, -1, 1])
BASELINE = dict(zip(NAMES, (0.1, 0.8, 0.8), strict=True))


def sweep(
    stopping: str = "{}",
    *,
    epochs: int = 9,
    trials: int = 40,
    sampler: str = "random",
    pareto: str = f"{MAXIMIZE}\n  {MINIMIZE}",
    constrained: bool = False,
    deterministic: bool = False,
) -> SweepSpec:
    """A sweep with early stopping, by default at epochs 1 and 3 of 9, one in three going on."""
    search = (
        f"{{trials: {trials}, seed: 3, sampler: {sampler}, deterministic: {str(deterministic).lower()}, "
        f"early_stopping: {stopping}}}"
    )
    replacements = {
        f"{MAXIMIZE}\n  {MINIMIZE}": pareto,
        CONSTRAINT: CONSTRAINT if constrained else "",
        "epochs: 2\n": f"epochs: {epochs}\n",
        "{trials: 5, seed: 3, startup_trials: 2}": search,
        "profiles:\n  long: {trial: {epochs: 9}, search: {trials: 8}}\n": "",
    }
    text = SMALL
    for old, new in replacements.items():
        assert old in text
        text = text.replace(old, new)
    return spec.from_text(text, "contract.yaml")


def some_metrics(seed: int, count: int = 40) -> list[Metrics]:
    """Of trials in the order of their arrival, on which constraints hold and fail."""
    return as_metrics(some_costs(np.random.default_rng(seed), count))


def as_metrics(costs: Array) -> list[Metrics]:
    return [dict(zip(NAMES, map(float, row), strict=True)) for row in costs * SIGNS + 1]


def decide(scheduler: Scheduler, arrivals: Sequence[Metrics], epoch: int = 1) -> list[bool]:
    return [scheduler.record(number, epoch, metrics) for number, metrics in enumerate(arrivals)]


def some_go_on_and_some_are_stopped(make: Make) -> None:
    decided = decide(make(sweep()), some_metrics(0, 120))
    assert 0.25 < np.mean(decided[30:]) < 0.45


def fewer_than_the_factor_go_on(make: Make) -> None:
    worse = as_metrics(np.array([[0.0, 0, 0], [1, 1, 1], [2, 2, 2]]))
    assert decide(make(sweep()), worse) == [True, True, False]
    assert decide(make(sweep("{reduction_factor: 4}")), worse) == [True, True, True]


def a_first_front_is_protected_while_it_is_asked_for(make: Make) -> None:
    """Whom nobody who came before dominates, if there are fewer than so many; the others as ever."""
    rng = np.random.default_rng(11)
    costs = rng.dirichlet(np.ones(3), 60) + 0.2 * rng.random((60, 1))  # of most nobody is better in all
    arrivals = as_metrics(costs)
    alone = [
        not ((costs[:n] <= costs[n]).all(axis=1) & (costs[:n] < costs[n]).any(axis=1)).any()
        for n in range(60)
    ]
    plain, protected = (decide(make(sweep(f"{{protect: {n}}}")), arrivals) for n in (0, 40))
    spared = [of_first_front and n + 1 < 40 for n, of_first_front in enumerate(alone)]
    assert protected == [either or other for either, other in zip(plain, spared, strict=True)]
    assert sum(protected) > sum(plain) + 3


def nothing_is_decided_between_rungs(make: Make) -> None:
    scheduler = make(sweep())
    assert all(decide(scheduler, some_metrics(1), epoch=2))
    assert not all(decide(scheduler, some_metrics(1), epoch=3))


def the_best_newcomer_goes_on_and_the_worst_is_stopped(make: Make) -> None:
    for seed in range(3):
        best, worst = as_metrics(np.array([[-1.0, -1, -1], [9, 9, 9]]))
        for newcomer, expected in ((best, True), (worst, False)):
            scheduler = make(sweep())
            decide(scheduler, some_metrics(seed))
            assert scheduler.record(40, 1, newcomer) is expected


def one_objective_is_asynchronous_successive_halving(make: Make) -> None:
    """By counting those that are better."""
    arrivals = some_metrics(2, 60)
    for name, sign in zip(NAMES, SIGNS, strict=True):
        decided = decide(make(sweep(f"{{metrics: [{name}]}}")), arrivals)
        values = [sign * metrics[name] for metrics in arrivals]
        for n in range(1, 61):
            better = sum(value < values[n - 1] for value in values[:n])
            assert decided[n - 1] == (n < 3 or better < math.ceil(n / 3))


def maximising_is_minimising_the_negative(make: Make) -> None:
    arrivals = some_metrics(3)
    turned = [{name: -value for name, value in metrics.items()} for metrics in arrivals]
    opposite = sweep(pareto="maximize: [robust_ece]\n  minimize: [robust_accuracy, clean_accuracy]")
    assert decide(make(sweep()), arrivals) == decide(make(opposite), turned)


def units_do_not_decide(make: Make) -> None:
    arrivals = some_metrics(4, 60)
    for name in NAMES:
        other = [metrics | {name: 1024 * metrics[name] + 2048} for metrics in arrivals]
        assert decide(make(sweep()), arrivals) == decide(make(sweep()), other)


def who_breaks_a_constraint_is_behind(make: Make) -> None:
    """In thirties, among whom there is room for ten."""
    bad, good = {"clean_accuracy": 0.39}, {"clean_accuracy": 0.41}
    best, worst = {"robust_accuracy": 1.0, "robust_ece": 0.0}, {"robust_accuracy": 0.0, "robust_ece": 0.9}
    for feasible, newcomer, expected in ((9, worst | good, True), (20, best | bad, False)):
        scheduler = make(sweep(constrained=True), baseline=BASELINE)
        for number in np.random.default_rng(feasible).permutation(29).tolist():
            values = {"robust_accuracy": 0.5, "robust_ece": 0.5 - number / 100}
            scheduler.record(number, 1, values | (good if number < feasible else bad))
        assert scheduler.record(29, 1, newcomer) is expected


def all_go_on_until_the_untrained_model_is_known(make: Make) -> None:
    arrivals, twin = some_metrics(5, 80), make(sweep(constrained=True), baseline=BASELINE)
    scheduler = make(sweep(constrained=True))
    assert all(decide(scheduler, arrivals[:40]))
    scheduler.baseline = BASELINE
    known = decide(twin, arrivals)
    assert decide(scheduler, arrivals)[40:] == known[40:]


def what_is_not_finite_is_stopped_and_does_not_count(make: Make) -> None:
    arrivals = some_metrics(6)
    expected, scheduler = decide(make(sweep()), arrivals), make(sweep())
    for number, metrics in enumerate(arrivals):
        for other, value in enumerate((math.nan, math.inf, -math.inf), start=1):
            broken = metrics | {NAMES[number % 3]: value}
            assert not scheduler.record(1000 * other + number, 1, broken)
        assert scheduler.record(number, 1, metrics) == expected[number]
    assert not scheduler.record(5000, 2, dict.fromkeys(NAMES, math.nan))  # nor has it to wait for a rung


def a_repeated_report_does_not_count(make: Make) -> None:
    arrivals = some_metrics(7)
    expected, scheduler = decide(make(sweep()), arrivals), make(sweep())
    for number, metrics in enumerate(arrivals):
        for _ in range(3):
            assert scheduler.record(number, 1, metrics) == expected[number]
        earlier = number // 2
        assert scheduler.record(earlier, 1, arrivals[earlier]) == expected[earlier]


def who_ends_by_itself_is_not_stopped_but_counts(make: Make) -> None:
    arrivals = some_metrics(8)
    expected, scheduler = decide(make(sweep()), arrivals), make(sweep())
    for number, metrics in enumerate(arrivals):
        last = number % 2 == 0
        assert scheduler.record(number, 1, metrics, last=last) == (last or expected[number])


def a_rebuilt_scheduler_decides_alike(make: Make) -> None:
    """Whenever it is ended, from what it logged; with copies, among which a generator decides."""
    costs = np.random.default_rng(9).integers(0, 3, (36, 3)).astype(float)
    for settings in ("{}", "{brackets: 2, within: crowding}"):
        spec_, arrivals = sweep(settings, constrained=True), as_metrics(costs / 4)
        events = [(number, epoch) for number in range(36) for epoch in ((1, 3) if number % 3 else (1,))]
        whole: list[Decision] = []
        scheduler = make(spec_, baseline=BASELINE, log=whole.append)
        expected = [scheduler.record(n, epoch, arrivals[n]) for n, epoch in events]
        for at in range(0, len(events), 13):
            logged: list[Decision] = []
            first = make(spec_, baseline=BASELINE, log=logged.append)
            decided = [first.record(n, epoch, arrivals[n]) for n, epoch in events[:at]]
            second = make(spec_, baseline=BASELINE, past=list(logged), log=logged.append)
            assert [second.record(n, epoch, arrivals[n]) for n, epoch in events[:at]] == decided
            decided += [second.record(n, epoch, arrivals[n]) for n, epoch in events[at:]]
            assert decided == expected
            assert logged == whole


def brackets_are_spared_rungs(make: Make) -> None:
    """A trial's bracket follows from its number, and says at which rung the first decision is."""
    settings = sweep("{brackets: 3}", epochs=27)
    worst = as_metrics(np.full((1, 3), 9.0))[0]
    spared: dict[int, int] = {}
    for epoch in (1, 3, 9):
        scheduler = make(settings)
        decide(scheduler, some_metrics(10, 60), epoch)
        for number in range(1000, 1100):
            if not scheduler.record(number, epoch, worst):
                spared.setdefault(number, epoch)
    counts = [list(spared.values()).count(epoch) for epoch in (1, 3, 9)]
    assert sum(counts) == 100
    assert counts[0] > 2 * counts[1] > 2 * counts[2] > 0


def the_seed_is_the_only_source_of_chance(make: Make) -> None:
    costs = np.random.default_rng(12).integers(0, 2, (60, 3)).astype(float)
    found = []
    for seed in range(3):
        np.random.seed(seed)
        before = np.random.get_state()[1:3]
        found.append(decide(make(sweep("{brackets: 2}")), as_metrics(costs)))
        after = np.random.get_state()[1:3]
        assert before[1] == after[1]
        assert (before[0] == after[0]).all()
    assert found[0] == found[1] == found[2]


STOPPING: list[Callable[[Any], None]] = [
    some_go_on_and_some_are_stopped,
    fewer_than_the_factor_go_on,
    a_first_front_is_protected_while_it_is_asked_for,
    nothing_is_decided_between_rungs,
    the_best_newcomer_goes_on_and_the_worst_is_stopped,
    one_objective_is_asynchronous_successive_halving,
    maximising_is_minimising_the_negative,
    units_do_not_decide,
    who_breaks_a_constraint_is_behind,
    all_go_on_until_the_untrained_model_is_known,
    what_is_not_finite_is_stopped_and_does_not_count,
    a_repeated_report_does_not_count,
    who_ends_by_itself_is_not_stopped_but_counts,
    a_rebuilt_scheduler_decides_alike,
    brackets_are_spared_rungs,
    the_seed_is_the_only_source_of_chance,
]
