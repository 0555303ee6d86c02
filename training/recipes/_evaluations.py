"""What a trainer finds of each row of its held-out set, in passes that are there anyway."""

from typing import Any


class KeepsEvaluation:
    """Of trainers: keeps numbers of every row evaluated, and reads no held-out set twice with the same weights.

    TRL logs means of batches; an interval needs the rows. Subclasses add to `kept` in evaluation, one entry a row, in the order
    of the evaluation set; it holds those of the newest evaluation.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.kept: list[Any] = []
        self._newest: tuple[int, dict[str, float]] | None = None

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """TRL's."""
        self.kept.clear()
        metrics = super().evaluate(*args, **kwargs)
        self._newest = self.state.global_step, metrics
        return metrics

    def evaluate_at_the_end(self) -> dict[str, float]:
        """TRL's metrics of the held-out set for the weights as they are, and its rows in `kept`.

        A run often ends with a step after which it evaluated; then that one stands.
        """
        if self._newest and self._newest[0] == self.state.global_step and not self.args.load_best_model_at_end:
            return self._newest[1]
        return self.evaluate()
