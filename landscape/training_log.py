"""What a line of a training's log (metrics.jsonl) must hold, to be drawn and to be counted on."""

from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

NDCG = "ndcg@10"


def _with_ndcg(metrics: dict[str, float | None]) -> dict[str, float | None]:
    if NDCG not in metrics:
        raise ValueError(f"no {NDCG}")
    return metrics


class _Line(BaseModel):
    model_config = ConfigDict(strict=True)

    epoch: Annotated[int, Field(ge=0, lt=2**63)]
    seconds: float = 0.0
    loss: float | None = None  # not a number where no step saw the loss at w, which JSON has as null
    losses: dict[str, float | None] = {}
    valid: Annotated[dict[str, float | None], AfterValidator(_with_ndcg)] = {}
    test: dict[str, float | None] = {}


def checked_line(line: dict[str, Any]) -> dict[str, Any]:
    """Return a line as it is.

    Raises:
        ValueError: something in it is of another type than training writes, or its epoch is missing.
    """
    _Line.model_validate(line)
    return line


LogLine = Annotated[dict[str, Any], AfterValidator(checked_line)]
"""A line as a field of a pydantic model."""
