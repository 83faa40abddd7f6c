"""The pages of `tuner plan` and `tuner targets`, and their documents for `--json`."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from tuner.footprint import Row
from tuner.plan import Plan
from tuner.report.forecast import forecast
from tuner.report.paragraph import print_paragraph
from tuner.space import HardwareConfig
from tuner.targets.table import Gpu
from tuner.targets.toolchain import INSTALL

METHODS = {
    "device": "compiled for this device",
    "target": "compiled for this GPU, which is not here",
    "cpu estimate": "estimated from the CPU's program, which took 10 % less to 37 % more than the "
    f"GPU's in 9 cases; for the GPU's own, {INSTALL}",
}
UNVERIFIED = (
    "these figures have never been compared with the peak of a real GPU; tuning on the device and "
    "library workspaces can add to them"
)
GB_FROM = 100_000_000
"""A plan whose largest config takes so many bytes is shown in GB, a smaller one in MB."""
MARKS = {"compiled": "", "derived": "", "failed": "?"}
LEGEND = "! does not fit   ? does not compile"


def plan_document(plans: Sequence[Plan]) -> dict[str, Any]:
    """Return the document of `tuner plan --json`."""
    config = plans[0].config
    return {
        "workload": {"env": config.env, "env_params": config.env_params, "trainer": config.trainer},
        "space": {name: list(choices) for name, choices in config.space().choices().items()},
        "num_configs": len(config.space().configs()),
        "plans": [_entry(plan) for plan in plans],
    }


def print_plan(plans: Sequence[Plan]) -> None:
    """Print each plan: a table of memory, what fits, and how long it would take."""
    console = Console(highlight=False)
    for plan in plans:
        entry = _entry(plan)
        console.print(
            f"\n[bold]{escape(plan.place.name)}[/bold]: {len(plan.configs)} configs", end=", "
        )
        console.print(f"memory in {_unit(plan)[0]}, {METHODS[plan.place.method]}", markup=False)
        console.print(_table(plan))
        console.print(LEGEND, markup=False)
        for what, value in _summary(plan, entry):
            print_paragraph(console, value, label=f"{what:<10} ")
    if any(plan.place.kind == "gpu" for plan in plans):
        console.print()
        print_paragraph(console, UNVERIFIED, label="note       ")


def targets_document(gpus: Sequence[Gpu]) -> list[dict[str, Any]]:
    """Return the document of `tuner targets --json`."""
    return [gpu.as_dict() | {"description": gpu.target().description} for gpu in gpus]


def print_targets(gpus: Sequence[Gpu]) -> None:
    """Print the known GPUs and the sources of their figures."""
    console = Console(highlight=False)
    table = Table(box=None, pad_edge=False)
    for column in ("GPU", "also"):
        table.add_column(column, overflow="fold")
    for column in ("GB", "SMs", "TB/s", "CC"):
        table.add_column(column, justify="right", no_wrap=True)
    for gpu in gpus:
        table.add_row(
            gpu.name,
            ", ".join(gpu.also[:2]),
            f"{gpu.memory_bytes / 1e9:.1f}",
            str(gpu.core_count),
            f"{gpu.memory_bandwidth / 1e12:.2f}",
            gpu.compute_capability,
        )
    console.print(table)
    console.print("\nsources")
    for gpu in gpus:
        console.print(f"{gpu.name}: {gpu.source}", markup=False, soft_wrap=True)


def _entry(plan: Plan) -> dict[str, Any]:
    place, largest = plan.place, plan.largest()
    batch = None if largest is None else largest.batch_size
    told = forecast(plan.config, place.name, batch, plan.num_runs())
    return {
        "device": {
            "name": place.name,
            "kind": place.kind,
            "memory_gb": _gb(place.memory_bytes),
            "source": place.source,
        },
        "method": place.method,
        "memory_limit_gb": _gb(place.limit_bytes),
        "memory_limit": place.limit,
        "configs": [_config(plan, config) for config in plan.configs],
        "largest_fitting": None if largest is None else _config(plan, largest),
        "head_room_gb": None
        if largest is None
        else _gb((place.limit_bytes or 0) - (plan.rows[largest].bytes or 0)),
        "programs": {
            "compiled_now": plan.compiled,
            "known": len(plan.known),
            "compile_s": plan.compile_s,
        },
        "largest_difference_of_equals": plan.footprint.largest_difference,
        "forecast": told.as_dict(),
    }


def _config(plan: Plan, config: HardwareConfig) -> dict[str, Any]:
    row = plan.rows[config]
    return {
        **config.as_dict(),
        "predicted_memory_gb": _gb(row.bytes),
        "memory_source": row.source if plan.place.method != "cpu estimate" else "cpu estimate",
        "fits": plan.fits(row),
        "reason": row.reason,
    }


def _table(plan: Plan) -> Table:
    """Return a table of batches by minibatches; epochs only where they change the memory."""
    shapes = sorted({(c.num_envs, c.num_steps) for c in plan.configs})
    by_epochs = plan.config.trainer is not None
    columns = sorted({(c.num_minibatches, c.num_epochs if by_epochs else 0) for c in plan.configs})
    cells: dict[tuple[int, int, int, int], Row] = {}
    for config, row in plan.rows.items():
        key = (config.num_envs, config.num_steps, config.num_minibatches)
        cells.setdefault((*key, config.num_epochs if by_epochs else 0), row)
    unit = _unit(plan)[1]
    table = Table(box=None, pad_edge=False)
    for name in ("envs", "steps", "batch"):
        table.add_column(name, justify="right")
    for minibatches, epochs in columns:
        title = f"mb{minibatches} ep{epochs}" if by_epochs else f"mb{minibatches}"
        table.add_column(title, justify="right")
    for envs, steps in shapes:
        found = [cells.get((envs, steps, *column)) for column in columns]
        table.add_row(
            str(envs), str(steps), f"{envs * steps:,}", *(_cell(plan, row, unit) for row in found)
        )
    return table


def _unit(plan: Plan) -> tuple[str, float]:
    """Return the unit that suits the largest config, and its bytes."""
    largest = max((row.bytes or 0 for row in plan.rows.values()), default=0)
    return ("GB", 1e9) if largest >= GB_FROM else ("MB", 1e6)


def _cell(plan: Plan, row: Row | None, unit: float) -> str:
    if row is None:
        return "–"
    size = "" if row.bytes is None else f"{row.bytes / unit:.3f}"
    return f"{'!' if plan.fits(row) is False else ''}{MARKS[row.source]}{size}"


def _summary(plan: Plan, entry: dict[str, Any]) -> list[tuple[str, str]]:
    """Return what is said below a table, by its heading."""
    rows = list(plan.rows.values())
    fit, not_fit = (sum(plan.fits(row) is verdict for row in rows) for verdict in (True, False))
    place = plan.place
    name, unit = _unit(plan)
    limit = "unknown" if place.limit_bytes is None else f"{place.limit_bytes / 1e9:.4g} GB"
    fits = f"{fit} of {len(rows)} configs" if place.limit_bytes is not None else "unknown"
    lines = [("limit", f"{limit} = {place.limit}"), ("fit", fits)]
    if not_fit:
        lines.append(("do not fit", f"{not_fit}, marked !"))
    failed = {row.reason for row in rows if row.source == "failed"}
    lines += [("failed", str(reason)) for reason in sorted(str(r) for r in failed)]
    largest = plan.largest()
    if largest is not None:
        lines.append(
            (
                "largest",
                f"{largest.batch_size:,} env-steps a batch ({largest}): "
                f"{(plan.rows[largest].bytes or 0) / unit:.4g} {name}, "
                f"{entry['head_room_gb']:.4g} GB left",
            )
        )
    if plan.config.has_rates:
        rates = ", ".join(f"{rate:g}" for rate in plan.config.learning_rates)
        number = len(plan.config.space().configs())
        lines.append(("rates", f"{rates}: {number} trials; they change no memory"))
    lines.append(("programs", _programs(plan)))
    lines.append(("time", _time(entry["forecast"])))
    return lines


def _programs(plan: Plan) -> str:
    derived = sum(row.source == "derived" for row in plan.rows.values())
    text = f"{plan.compiled} compiled now, {len(plan.known) - plan.compiled} known before"
    if derived:
        text += f"; {derived} configs of the same batch and minibatches take the same"
    if (difference := plan.footprint.largest_difference) is not None:
        text += f" (programs compiled to check that differ by {difference:.2%})"
    return text


def _time(told: Mapping[str, Any]) -> str:
    if told["trial_s"] is None:
        return str(told["source"])
    text = f"{told['trial_s']:.0f} s a trial, {told['space_minutes']:.0f} min for the whole space"
    if told["budget_trials"] is not None:
        text += f", {told['budget_trials']} trials in the budget"
    return f"{text} ({told['source']})"


def _gb(size: int | None) -> float | None:
    return None if size is None else size / 1e9
