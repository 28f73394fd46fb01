"""How every figure begins and ends, without a window system."""

import io
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BLUE, RED, GREY = "#1f6fb2", "#c0392b", "#a9afb9"


def new_figure(width: float, height: float) -> "Figure":
    """Return an empty figure of that size in inches, without a window system."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def literal(text: str) -> str:
    """Return the text with ``$`` made literal: matplotlib would read formulas between two."""
    return text.replace("$", r"\$")


def say_nothing(axes: "Axes", text: str) -> None:
    """Write why there is nothing to draw."""
    axes.text(0.5, 0.5, text, ha="center", va="center", transform=axes.transAxes, color="#666666")
    axes.set_yticks([])


def clean(axes: "Axes") -> None:
    """Take away the frame's upper and right side, and make the numbers small."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(which="both", labelsize=8)


def png(figure: "Figure") -> bytes:
    """Return a figure as the bytes of a PNG picture."""
    stream = io.BytesIO()
    # No creation date or library version inside: the same table gives the same bytes.
    figure.savefig(stream, format="png", dpi=110, metadata={"Software": None})
    return stream.getvalue()
