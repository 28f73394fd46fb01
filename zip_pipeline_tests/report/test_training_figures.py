"""The picture of a training run."""

from zip_pipeline.report.figures import loss_figure


def test_loss_figure_is_the_same_picture_for_the_same_losses() -> None:
    """A PNG that depends on the losses, the title and the kind of loss, and on nothing else."""
    losses = [2.0, 1.5, 1.25]
    picture = loss_figure(losses, "sft version 1")
    assert picture.startswith(b"\x89PNG\r\n")
    assert loss_figure(losses, "sft version 1") == picture
    others = [
        loss_figure([2.0, 1.5, 1.0], "sft version 1"),
        loss_figure(losses, "sft version 2"),
        loss_figure(losses, "sft version 1", is_kto=True),
    ]
    assert len({picture, *others}) == 4
