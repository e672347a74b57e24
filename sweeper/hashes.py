"""Numbers that follow from what they are of, on any machine: seeds."""

from __future__ import annotations

import hashlib
import json
from typing import Any


def trial_seed(sweep_seed: int, config: dict[str, Any], index: int = 0) -> int:
    """A trial's training seed: a hash of the sweep's seed and its configuration. index: of a further one."""
    return stable_hash(sweep_seed, "trial", config, *([index] if index else [])) % 2**31


def stable_hash(*parts: Any) -> int:
    text = json.dumps(parts, sort_keys=True)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")
