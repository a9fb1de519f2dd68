"""Runs of one shape as one batched model, which is how a GPU has something to do."""

from collections.abc import Iterator, Sequence

from landscape.errors import InputError
from samrec.checkpoint import load
from samrec.sweeps.jobs import Job
from samrec.training.engines.stacked import MAY_DIFFER
from samrec.training.loop import train, train_together


def together(jobs: Sequence[Job], device: str, max_memory: float | None) -> Iterator[tuple[Job, str]]:
    """Train jobs of one shape that stand at the same step as one; yield each with what went wrong."""

    def shape(job: Job) -> str:
        path = job.out / "last.pt"
        last = load(path) if path.exists() else None
        at = (last.epoch, len(last.sums)) if last else (0, 0)
        config = job.config
        learns = "sasrec" if config.method == "samrec" else config.method
        alone = job.name if config.micro_batches > 1 else ""
        return repr((at, learns, config.model_dump(exclude=MAY_DIFFER), alone))

    groups: dict[str, list[Job]] = {}
    for job in jobs:
        groups.setdefault(shape(job), []).append(job)
    for group in groups.values():
        try:
            configs, outs = [job.config for job in group], [job.out for job in group]
            train_together(configs, outs, device, resume=True, max_memory=max_memory)
            yield from ((job, "") for job in group)
        except InputError:  # one of them diverged; trained one by one, the others still finish
            for job in group:
                try:
                    train(job.config, job.out, device, resume=True, max_memory=max_memory)
                    yield job, ""
                except InputError as error:
                    yield job, str(error)
