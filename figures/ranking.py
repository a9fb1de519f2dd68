"""What SAM and other methods gain over SASRec, with intervals over seeds and users, and what is decided."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from figures.questions import CLAIMED, LEVEL, PRIMARY, QUESTIONS, answers, overall
from figures.records import read_records
from figures.style import GAP, METRICS, SETS, gain_lines, gained, markdown, percent, share
from landscape.plots.style import PAGE, paper

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CAPTION = (
    "Gains over SASRec in test NDCG@10 and HR@10, means over seeds of the late checkpoints: the five "
    "successive validations with the highest mean validation NDCG@10. 95% intervals by Student's t over "
    "pairs of runs that share their seed, users included; each is at 95% by itself. Filled: p < .05 after "
    "Holm over the data sets of a question. Arrows: beyond 30%. Grey: what SAMRec's paper reports."
)


def data(results: Path) -> dict[str, Any]:
    """Collect the answers to each question that has a pair of runs."""
    records = read_records(results)
    found = {name: answers(question, records, results) for name, question in QUESTIONS.items()}
    found = {name: rows for name, rows in found.items() if rows}
    decided = overall(found.get(PRIMARY, []))
    return {"caption": CAPTION, "claimed": CLAIMED, "questions": found, "decided": decided}


def draw(found: dict[str, Any]) -> "dict[str, Figure]":
    """Draw the gains at the late checkpoints, a line for each data set of a question; nothing of none."""
    from matplotlib.figure import Figure

    questions = found["questions"]
    if not questions:
        return {}
    count = sum(map(len, questions.values())) + GAP * len(questions)
    with paper():
        figure = Figure(figsize=(PAGE, 0.8 + 0.16 * max(6, count)))
        for axes, (metric, title) in zip(
            figure.subplots(1, 2, sharex=True, sharey=True), METRICS.items(), strict=True
        ):
            sections = [
                [(f"{name}: {SETS[row['data']]}", row[metric]["late"]) for row in rows]
                for name, rows in questions.items()
            ]
            gain_lines(axes, sections, LEVEL)
            low, high = (100 * end for end in found["claimed"])
            axes.axvspan(low, high, color="0.88", lw=0, zorder=-1)
            across = axes.get_xaxis_transform()
            axes.text((low + high) / 2, 1, "the paper", ha="center", va="bottom", transform=across)
            axes.set_xlabel(f"gain in {title}, %")
        return {"": figure}


def texts(found: dict[str, Any]) -> dict[str, str]:
    """Return a table of all questions, and what is decided."""
    head = ["question", "data", "seeds", "NDCG@10", "gain, late checkpoints", "gain, best checkpoint"]
    head += ["gain in HR@10, late", "could have been seen", "decision"]
    rows = [
        [
            name,
            SETS[row["data"]],
            f"{len(row['seeds'])} of {row['planned']}",
            f"{share(row['ndcg@10']['late']['theirs'])}, {share(row['ndcg@10']['late']['ours'])}",
            gained(row["ndcg@10"]["late"]),
            gained(row["ndcg@10"]["best"]),
            gained(row["hr@10"]["late"]),
            _seen(row["ndcg@10"]["late"]["seen"]),
            row["decision"],
        ]
        for name, own in found["questions"].items()
        for row in own
    ]
    table = markdown(head, rows) if rows else "No pair of runs is recorded yet.\n"
    return {"md": f"{table}\nThe primary question, {PRIMARY}: {found['decided']}.\n"}


def _seen(gain: float | None) -> str:
    return "more than doubled" if gain is not None and gain > 1 else percent(gain)
