"""The picture of a training run."""

from collections.abc import Sequence

from zip_pipeline.report.figures import Losses, loss_figure


def _losses(name: str, *steps: float) -> Losses:
    return Losses(name, steps, sum(steps) / len(steps))


def test_loss_figure_is_the_same_picture_for_the_same_losses() -> None:
    """A PNG that depends on losses, title, unit and the version before, and on nothing else."""
    losses = _losses("version 2", 2.0, 1.5, 1.25)
    picture = loss_figure(losses, "sft version 2")
    assert picture is not None
    assert picture.startswith(b"\x89PNG\r\n")
    assert loss_figure(losses, "sft version 2") == picture
    others = [
        loss_figure(_losses("version 2", 2.0, 1.5, 1.0), "sft version 2"),
        loss_figure(losses, "sft version 3"),
        loss_figure(losses, "sft version 2", unit=""),
        loss_figure(losses, "sft version 2", before=_losses("version 1", 2.5, 2.0)),
    ]
    assert len({picture, *others}) == 5


def test_loss_figure_is_not_drawn_of_one_step() -> None:
    """A point is no course."""
    one: Sequence[float] = (1.0,)
    assert loss_figure(Losses("version 1", one, 1.0), "short") is None
    assert loss_figure(Losses("version 1", (), 0.0), "none") is None
