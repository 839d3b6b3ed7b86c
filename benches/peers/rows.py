"""The rows of the table: what is timed, on which weights, and what the goal is. Knows no program."""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Row:
    name: str
    # prefill, decode or sessions
    phase: str
    # Weights: f32, bf16, q8 or q4.
    kind: str
    # Goals: a ratio for each model that has one, and the share of the machine's peak that is enough where it is less.
    ratio: dict = field(default_factory=dict)
    share: float | None = None
    deep: bool = False


def _goals(small, large):
    return {name: ratio for name, ratio in (("smollm2", small), ("1b", large)) if ratio}


# Decode has to reach this share of the read bandwidth.
_READ = 0.85
_ROWS = [
    Row("prefill-f32", "prefill", "f32", _goals(1.5, None), 0.75),
    Row("decode-f32", "decode", "f32"),
    Row("prefill-bf16", "prefill", "bf16", _goals(2.0, 1.35), 0.77),
    Row("decode-bf16", "decode", "bf16", _goals(1.6, 1.3), _READ),
    Row("prefill-q8", "prefill", "q8", _goals(3.0, 3.5), 0.55),
    Row("decode-q8", "decode", "q8", _goals(1.8, 1.3), _READ),
    Row("prefill-q4", "prefill", "q4", _goals(2.5, 2.5), 0.55),
    Row("decode-q4", "decode", "q4", _goals(2.2, 1.5), _READ),
    Row("deep-prefill-q8", "prefill", "q8", _goals(3.0, 2.5), 0.55, deep=True),
    Row("deep-decode-q8", "decode", "q8", _goals(3.0, 2.5), _READ, deep=True),
    Row("sessions-q8", "sessions", "q8", _goals(3.0, 2.0)),
]
ROWS = {row.name: row for row in _ROWS}

# What llama.cpp calls the weights of a kind.
THEIRS = {"f32": "f32", "bf16": "bf16", "q8": "q8_0", "q4": "q4_0"}
SESSIONS = 8


@dataclass
class Job:
    """Rows that one run of each program measures together."""

    model: str
    kind: str
    deep: bool
    sessions: bool
    rows: list

    @property
    def names(self):
        return [row.name for row in self.rows]

    def row(self, phase):
        return next((row for row in self.rows if row.phase == phase), None)

    def __str__(self):
        return f"{self.model}, {' and '.join(self.names)}"


def jobs(models, wanted):
    """The jobs of the rows that `wanted` names, wholly or by their beginnings."""
    rows = [row for row in _ROWS if wanted == ["all"] or any(row.name.startswith(name) for name in wanted)]
    if not rows:
        raise SystemExit(f"--rows: expected names or beginnings of {', '.join(ROWS)}, found {','.join(wanted)}")
    for model in models:
        found = {}
        for row in rows:
            key = (row.kind, row.deep, row.phase == "sessions")
            found.setdefault(key, Job(model, *key, [])).rows.append(row)
        yield from found.values()
