"""How regret falls with the device-seconds spent, before finalists, as a picture."""

from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

COLOURS = {
    "structured": "#0072b2", "random": "#888888", "tpe": "#d55e00", "gp": "#009e73",
    "ascending_patience3": "#cc79a7", "grid": "#e69f00",
    "structured_left_out": "#56b4e9", "structured_without_slopes": "#f0e442",
    "tpe_eager": "#000000",
}  # fmt: skip
"""Of Okabe and Ito, which the colour-blind can tell apart."""
SIZE = (4.2, 3.4)
"""Inches of one panel."""


def plot(document: dict[str, Any], file: Path) -> None:
    """Draw the mean regret of `balanced` for every table that can tell configs apart."""
    tables = {
        name: methods
        for name, methods in document["tables"].items()
        if any(found["balanced"]["judged"] for found in methods.values())
    }
    if not tables:
        return
    figure = Figure(figsize=(SIZE[0] * len(tables), SIZE[1]), layout="constrained")
    panels = figure.subplots(1, len(tables), sharey=True, squeeze=False)[0]
    for panel, (name, methods) in zip(panels, tables.items(), strict=True):
        for method, found in methods.items():
            path = found["balanced"].get("path")
            if path:
                shares, regrets = zip(*path, strict=True)
                percent = [100 * share for share in shares]
                panel.plot(percent, regrets, label=method, color=COLOURS.get(method))
        panel.set_title(name)
        panel.set_xlabel("% of the table's device-seconds")
        panel.axhline(0, color="black", linewidth=0.5)
    panels[0].set_ylabel("mean normalised regret of balanced")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside right upper", frameon=False)
    figure.savefig(file)
