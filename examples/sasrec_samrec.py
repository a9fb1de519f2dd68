"""SASRec and SAMRec on histories from a Markov chain, whose best possible ranker is known.

python examples/sasrec_samrec.py
"""

from pathlib import Path
from tempfile import TemporaryDirectory

from matplotlib.figure import Figure

import landscape as ll
import samrec
from landscape import plots
from samrec.data.synthetic import markov, write_sequences

USERS, EPOCHS, TOL = 1000, 40, 1e-3
MEASURES = ("sam", "asam", "average", "average-adaptive", "fisher-rao", "trace")
PICTURES = Path(__file__).parent / "pictures"


def main(folder=PICTURES):
    synthetic = markov(users=USERS, seed=0)
    with TemporaryDirectory() as runs:
        data = Path(runs) / "histories.txt"
        write_sequences(synthetic.interactions, data)
        outcomes = {}
        for name, method in (("SASRec", "sasrec"), ("SAMRec", "samrec")):
            config = samrec.Config(
                data=str(data),
                method=method,
                dim=32,
                max_length=20,
                batch_size=128,
                dropout=0.2,
                lr=3e-3,
                epochs=EPOCHS,
            )
            outcomes[name] = samrec.train(config, Path(runs) / method)

        # One frozen loss for both: the same users and negatives, dropout off.
        checkpoints = [outcome.out / "best.pt" for outcome in outcomes.values()]
        options = ll.TaskOptions(users=512, data=data)
        objectives = dict(zip(outcomes, ll.objectives_of(checkpoints, options), strict=True))

    lines = {name: ll.line(objective, radius=2.0, tol=TOL) for name, objective in objectives.items()}
    compared = ll.compare({name: ll.sharpness(o, MEASURES) for name, o in objectives.items()})
    rows = [row for row in compared.rows if row.measure in MEASURES]
    with plots.paper():
        figure = Figure(figsize=(plots.PAGE, 2.4))
        left, right = figure.subplots(1, 2)
        for (name, line), color in zip(lines.items(), plots.COLORS, strict=False):
            left.plot(line.coordinates[0], line.losses, color=color, label=name)
        left.set(xlabel="step along one filter-normalized direction", ylabel="frozen training loss")
        left.legend()
        plots.forest(compared, ax=right)
    plots.save_figure(figure, folder / "sasrec_samrec.png")

    print(*ll.verdict(compared), sep="\n")
    ranked = " and ".join(f"{outcome.test['hr@10']:.3f} ({name})" for name, outcome in outcomes.items())
    apart = lines["SAMRec"].center - lines["SASRec"].center
    error = ll.paired_error(lines["SAMRec"], lines["SASRec"])
    lower = [row.measure for row in rows if row.contrasts[0].high and row.contrasts[0].high < 1]
    print(
        f"HR@10 is {ranked}, and the best ranker that there can be has {synthetic.ideal_hr10:.3f}. SAMRec's "
        f"loss less SASRec's is {apart:+.4f} ± {error:.4f}; lower for SAMRec: {', '.join(lower) or 'none'}."
    )


if __name__ == "__main__":
    main()
