"""What a data set is measured for in an evaluation."""

from __future__ import annotations

from dataclasses import dataclass

TRANSFER, OOD = "transfer", "ood"
"""The groups of the sets under `evaluate` and `further_sets`, and of those under `ood`."""


@dataclass(frozen=True)
class Role:
    """groups: names under which its metrics are averaged with those of other sets; the in-distribution set,
    the first one, is in none.  attacked: whether its images are attacked too.
    outside: whether its images are of no class of the in-distribution set, whose classifier scores them."""

    groups: tuple[str, ...] = (TRANSFER,)
    attacked: bool = True
    outside: bool = False

    def and_also(self, other: Role) -> Role:
        """For a set that is asked for twice."""
        groups = tuple(dict.fromkeys((*self.groups, *other.groups)))
        return Role(groups, self.attacked or other.attacked, self.outside)


IN_DISTRIBUTION, TRANSFERRED = Role(()), Role()
