"""The report's figures as inline SVG that follows the page's colours and fonts.

In:  numbers.  Out: one `<svg>` element a figure, the same bytes for the same numbers.

Unusual: matplotlib draws with stand-in colours that become CSS variables, so one figure serves light, dark and paper;
text stays text, so it can be searched and read aloud.
"""

import html
import io
import re
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from codeweft.base.progress import quantity

INK, FAINT, GRID, FIRST, SECOND, THIRD = "#010203", "#020304", "#030405", "#040506", "#050607", "#060708"
VARIABLES = {INK: "ink", FAINT: "faint", GRID: "grid", FIRST: "first", SECOND: "second", THIRD: "third"}
STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "codeweft",
    "font.family": "sans-serif",
    "font.size": 9.5,
    "text.color": INK,
    "axes.labelcolor": FAINT,
    "axes.edgecolor": GRID,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "xtick.color": GRID,
    "ytick.color": GRID,
    "xtick.labelcolor": FAINT,
    "ytick.labelcolor": FAINT,
    "lines.linewidth": 1.6,
    "legend.frameon": False,
}
# diverging around an even share; readable on white and on black
LOAD_COLOURS = LinearSegmentedColormap.from_list("load", ["#2c6fbb", "#9dbfe0", "#f2f0eb", "#f0b48a", "#c2491d"])


def svg(figure: Figure, name: str, title: str) -> str:
    """The figure as an `<svg>` with a title for screen readers; ids are prefixed with `name`."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>\s*", "", text, flags=re.DOTALL)
    text = re.sub(r"<!--.*?-->\s*", "", text, flags=re.DOTALL)
    text = re.sub(r'\bid="', f'id="{name}-', text)
    text = re.sub(r'href="#', f'href="#{name}-', text).replace("url(#", f"url(#{name}-")
    text = re.sub(r"font: ([\d.]+)px [^;\"]*", r"font-size: \1px", text)
    for colour, variable in VARIABLES.items():
        text = text.replace(colour, f"var(--{variable})")
    label = f'<svg role="img" aria-labelledby="{name}-title"'
    return re.sub(r"<svg([^>]*)>", rf'{label}\1><title id="{name}-title">{html.escape(title)}</title>', text, count=1)


def loss_curves(
    training: tuple[Sequence[float], Sequence[float]],
    validation: tuple[Sequence[float], Sequence[float]],
    reference: float | None,
    name: str,
    unit: str = "nats per token",
) -> str:
    """Training loss with its running mean, validation loss, and the n-gram's loss as a line."""
    with mpl.rc_context(STYLE):
        figure, axes = _figure(9.0, 3.3)
        steps, losses = np.array(training[0]), np.array(training[1])
        axes.plot(steps, losses, color=FIRST, linewidth=0.7, alpha=0.35)
        axes.plot(steps, _running_mean(losses), color=FIRST, label="training, running mean")
        if validation[0]:
            axes.plot(*validation, color=SECOND, marker="o", markersize=3.5, label="validation")
        if reference is not None:
            axes.axhline(reference, color=THIRD, linestyle=(0, (5, 3)), label="5-gram on held-out documents")
        lowest = min([*losses, *validation[1], *([reference] if reference is not None else [])])
        start = float(np.quantile(losses, 0.98)) if len(losses) > 50 else float(losses.max())
        axes.set_ylim(lowest - 0.05 * (start - lowest) - 0.02, start + 0.05 * (start - lowest) + 0.02)
        axes.set_ylabel(unit)
        axes.legend(loc="upper right")
        return svg(figure, name, "Loss by optimizer step")


def small_series(
    points: tuple[Sequence[float], Sequence[float]], name: str, title: str, unit: str, smooth: bool = False
) -> str:
    """One quantity by step, small; `smooth` puts the running mean over the faint values."""
    with mpl.rc_context(STYLE):
        figure, axes = _figure(4.4, 2.3)
        steps, values = np.array(points[0]), np.array(points[1])
        if smooth:
            axes.plot(steps, values, color=FIRST, linewidth=0.7, alpha=0.35)
            values = _running_mean(values)
            top = float(np.quantile(points[1], 0.98))
            axes.set_ylim(0, top * 1.15 if top > 0 else 1)
        else:
            axes.set_ylim(0, max(float(values.max()) * 1.08, 1e-12))
        axes.plot(steps, values, color=FIRST)
        axes.set_ylabel(unit)
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: _short(value)))
        return svg(figure, name, title)


def load_map(layers: Mapping[int, Sequence[float]], name: str) -> str:
    """Load of each expert (columns, fullest first) in each MoE layer (rows), as a multiple of an even share."""
    rows = [sorted(loads, reverse=True) for loads in layers.values()]
    width = max(map(len, rows))
    grid = np.full((len(rows), width), np.nan)
    for number, loads in enumerate(rows):
        grid[number, : len(loads)] = loads
    with mpl.rc_context({**STYLE, "axes.grid": False}):
        figure, axes = _figure(9.0, 0.9 + 0.24 * len(rows))
        image = axes.imshow(grid, aspect="auto", cmap=LOAD_COLOURS, vmin=0, vmax=2, interpolation="nearest")
        axes.set_yticks(range(len(rows)), [f"MoE layer {layer + 1}" for layer in layers])
        axes.set_xlabel("experts of a layer, fullest first")
        axes.set_xticks([])
        if width <= 24 and len(rows) <= 16:
            for (row, column), value in np.ndenumerate(grid):
                dark = not 0.45 <= value <= 1.6
                colour = "#ffffff" if dark else "#222222"
                axes.text(column, row, f"{value:.2f}", ha="center", va="center", fontsize=7.5, color=colour)
        bar = figure.colorbar(image, ax=axes, fraction=0.03, pad=0.02, ticks=[0, 1, 2])
        bar.ax.set_yticklabels(["0", "even", "2x"])
        bar.outline.set_visible(False)
        axes.spines[:].set_visible(False)
        axes.tick_params(length=0)
        return svg(figure, name, "Load of each expert by layer at the last record")


def load_balance(records: Sequence[tuple[int, Mapping[int, Sequence[float]]]], name: str) -> str:
    """By step: the load of the fullest expert of each layer, as a multiple of an even share."""
    with mpl.rc_context(STYLE):
        figure, axes = _figure(9.0, 2.3)
        layers = list(records[-1][1])
        for place, layer in enumerate(layers):
            points = [(step, max(loads[layer])) for step, loads in records if layer in loads]
            shade = 0.35 + 0.65 * (place + 1) / len(layers)
            label = f"MoE layer {layer + 1}" if len(layers) <= 6 else None
            marker = "o" if len(points) < 4 else None
            axes.plot(*zip(*points, strict=True), color=FIRST, alpha=shade, marker=marker, markersize=3, label=label)
        axes.axhline(1, color=THIRD, linestyle=(0, (5, 3)), linewidth=1)
        axes.set_ylim(bottom=0.9)
        axes.set_ylabel("fullest / even share")
        if len(layers) <= 6:
            axes.legend(loc="upper right", ncols=3)
        return svg(figure, name, "Load of the fullest expert of each layer by step")


def intervals(rows: Sequence[tuple[str, float, tuple[float, float], bool]], name: str, title: str, unit: str) -> str:
    """Scores as points with their 95 % interval, one a row; the flag marks the model against its baselines."""
    with mpl.rc_context({**STYLE, "axes.grid.axis": "x"}):
        figure, axes = _figure(9.0, 0.75 + 0.3 * len(rows), steps=False)
        for place, (_, score, (low, high), ours) in enumerate(rows):
            colour = FIRST if ours else THIRD
            axes.plot([low, high], [place, place], color=colour, linewidth=2.2, solid_capstyle="round", clip_on=False)
            axes.plot([score], [place], color=colour, marker="o", markersize=6, clip_on=False)
        axes.set_yticks(range(len(rows)), [row[0] for row in rows])
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.set_xlim(left=0)
        axes.set_xlabel(unit)
        axes.spines["left"].set_visible(False)
        axes.tick_params(axis="y", length=0, labelcolor=INK)
        return svg(figure, name, title)


def _figure(width: float, height: float, steps: bool = True) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.subplots()
    if steps:
        axes.set_xlabel("step")
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    return figure, axes


def _running_mean(values: np.ndarray) -> np.ndarray:
    """Mean over a centred stretch of a fortieth of the run, shorter at both ends."""
    reach = max(len(values) // 80, 1)
    total = np.concatenate(([0.0], np.cumsum(values)))
    place = np.arange(len(values))
    low, high = np.maximum(place - reach, 0), np.minimum(place + reach + 1, len(values))
    return (total[high] - total[low]) / (high - low)


def _short(value: float) -> str:
    """An axis label: 12k, 0.003, 4e-04."""
    if value == 0 or 0.01 <= abs(value) < 10_000:
        return f"{value:g}"
    return quantity(value) if abs(value) >= 10_000 else f"{value:.0e}"
