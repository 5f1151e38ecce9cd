"""Evaluators and their registry: accuracy, macro F1, accuracy per class, confusion matrix."""

import logging
from collections import OrderedDict
from pathlib import Path
from typing import Any

import torch
from dassl.utils import Registry, build_registered
from yacs.config import CfgNode

__all__ = ["EVALUATOR_REGISTRY", "Classification", "build_evaluator"]

logger = logging.getLogger(__name__)

EVALUATOR_REGISTRY = Registry("EVALUATOR")


def build_evaluator(cfg: CfgNode, **kwargs: Any) -> Any:
    """Build the evaluator that ``cfg.TEST.EVALUATOR`` names; a ValueError if it is unknown."""
    registry, name = EVALUATOR_REGISTRY, cfg.TEST.EVALUATOR
    return build_registered(registry, "evaluator", name, cfg.VERBOSE, cfg, **kwargs)


@EVALUATOR_REGISTRY.register()
class Classification:
    """Evaluate the class with the largest score; other ``kwargs`` are ignored.

    Raises ValueError if TEST.PER_CLASS_RESULT is on and there are no class names.
    """

    def __init__(
        self, cfg: CfgNode, lab2cname: dict[int, str] | None = None, **kwargs: Any
    ) -> None:
        if cfg.TEST.PER_CLASS_RESULT and lab2cname is None:
            raise ValueError("TEST.PER_CLASS_RESULT needs class names, got lab2cname=None")
        self.cfg = cfg
        self._lab2cname = lab2cname or {}
        self.reset()

    def reset(self) -> None:
        """Clear what was processed."""
        self._y_true: list[int] = []
        self._y_pred: list[int] = []

    def process(self, mo: torch.Tensor, gt: torch.Tensor) -> None:
        """Add the scores (B, C) and the labels (B,) of a batch."""
        self._y_true.extend(gt.tolist())
        self._y_pred.extend(mo.argmax(dim=1).tolist())

    def evaluate(self) -> OrderedDict[str, float]:
        """Return and log percentages: accuracy (first), error_rate and macro_f1.

        Macro F1 is the mean over the labels present. TEST.PER_CLASS_RESULT adds perclass_accuracy,
        TEST.COMPUTE_CMAT saves the confusion matrix. Raises ValueError if nothing was processed.
        """
        if not self._y_true:
            raise ValueError("There is nothing to evaluate: no batch was processed")
        counts, labels = self._confusion()
        total, correct = int(counts.sum()), int(counts.diag().sum())
        accuracy, f1 = 100.0 * correct / total, _macro_f1(counts)
        logger.info(
            f"=> result\n* total: {total:,}\n* correct: {correct:,}\n* accuracy: {accuracy:.1f}%\n"
            f"* error: {100.0 - accuracy:.1f}%\n* macro_f1: {f1:.1f}%"
        )
        results = OrderedDict(accuracy=accuracy, error_rate=100.0 - accuracy, macro_f1=f1)
        if self.cfg.TEST.PER_CLASS_RESULT:
            results["perclass_accuracy"] = self._log_classes(counts, labels)
        if self.cfg.TEST.COMPUTE_CMAT:
            self._save_matrix(counts)
        return results

    def _confusion(self) -> tuple[torch.Tensor, list[int]]:
        """Count pictures by true (row) and predicted (column) label, of the labels that occur."""
        labels = sorted({*self._y_true, *self._y_pred})
        place = {label: i for i, label in enumerate(labels)}
        n = len(labels)
        cells = [place[t] * n + place[p] for t, p in zip(self._y_true, self._y_pred, strict=True)]
        counts = torch.bincount(torch.tensor(cells), minlength=n * n).view(n, n).double()  # (n, n)
        return counts, labels

    def _log_classes(self, counts: torch.Tensor, labels: list[int]) -> float:
        lines, accuracies = ["=> per-class result"], []
        for label, row, hits in zip(labels, counts, counts.diag(), strict=True):
            total, correct = int(row.sum()), int(hits)
            if total == 0:
                continue
            accuracies.append(100.0 * correct / total)
            lines.append(
                f"* class: {label} ({self._lab2cname.get(label, '?')})\ttotal: {total:,}\t"
                f"correct: {correct:,}\tacc: {accuracies[-1]:.1f}%"
            )
        average = sum(accuracies) / len(accuracies)
        logger.info("%s", "\n".join([*lines, f"* average: {average:.1f}%"]))
        return average

    def _save_matrix(self, counts: torch.Tensor) -> None:
        rows = counts.sum(dim=1, keepdim=True).clamp(min=1)  # a label that is only predicted: zeros
        fpath = Path(self.cfg.OUTPUT_DIR) / "cmat.pt"
        fpath.parent.mkdir(parents=True, exist_ok=True)
        torch.save(counts / rows, fpath)
        logger.info("Confusion matrix is saved to %s", fpath)


def _macro_f1(counts: torch.Tensor) -> float:
    """Compute the mean F1 in percent over the labels that some picture has (rows not empty)."""
    present = counts.sum(dim=1) > 0
    f1 = 2 * counts.diag() / (counts.sum(dim=0) + counts.sum(dim=1)).clamp(min=1)
    return 100.0 * float(f1[present].mean())
