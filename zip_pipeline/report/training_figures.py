"""Pictures of a training run, as PNG bytes."""

from collections.abc import Sequence

from zip_pipeline.pictures import new_figure, png

_COLOUR = "#1f6fb2"
_MARKED_POINTS = 60


def loss_figure(losses: Sequence[float], title: str, *, is_kto: bool = False) -> bytes:
    """Return a PNG of the training loss of each optimizer step.

    Args:
        losses: by step, from the first.
        title: printed above the curve.
        is_kto: the loss is KTO's, which has no unit; else it is in nats per token.
    """
    figure = new_figure(6.4, 3.4)
    axes = figure.subplots()
    steps = range(1, len(losses) + 1)
    marker = "o" if len(losses) <= _MARKED_POINTS else ""
    axes.plot(steps, losses, color=_COLOUR, linewidth=1.4, marker=marker, markersize=3)
    axes.set_xlabel("optimizer step", fontsize=9)
    axes.set_ylabel("KTO loss" if is_kto else "loss, nats per token", fontsize=9)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=8)
    axes.locator_params(axis="x", integer=True)
    figure.suptitle(title, fontsize=12, fontweight="bold")
    return png(figure)
