"""Options made from settings: `samrec.config.Config` alone says their types, defaults and meanings."""

import inspect
from collections.abc import Callable, Iterator, Mapping
from functools import update_wrapper
from pathlib import Path
from typing import Annotated, Any, get_args

import typer

from landscape.cli.options import not_with

Function = Callable[..., None]
OF_RANKING = ("loss", "negatives", "calibration", "eval_every", "patience")
"""Settings that a pre-training alone ignores, since it ranks nothing."""


def with_settings(*names: str) -> Callable[[Function], Function]:
    """Give a command an option per setting, all of them if none is named.

    The command takes those that are given as one dictionary, its parameter `settings`.
    """
    return lambda function: _WithSettings(function, names)


class _WithSettings:
    """A command whose options are known once they are asked for: until then pydantic is not imported."""

    def __init__(self, function: Function, names: tuple[str, ...]) -> None:
        update_wrapper(self, function)
        self.function, self.names = function, names
        self.__annotations__ = {}  # they stand in the signature

    @property
    def __signature__(self) -> inspect.Signature:
        own = inspect.signature(self.function, eval_str=True).parameters.values()
        made = list(_options(self.names))
        plain = [option for option in made if _panel(option) is None]
        parameters = [*plain, *(p for p in own if p.name != "settings"), *(m for m in made if m not in plain)]
        return inspect.Signature([p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in parameters])

    @property
    def synonyms(self) -> Mapping[str, str]:
        """What others call these settings, and their names here: for the suggestions of the command line."""
        from samrec.choices import SYNONYMS

        return SYNONYMS

    def __call__(self, **given: Any) -> None:
        settings = {option.name: given.pop(option.name) for option in _options(self.names)}
        self.function(
            settings={
                name: str(value) if isinstance(value, Path) else value
                for name, value in settings.items()
                if value is not None
            },
            **given,
        )


def _options(names: tuple[str, ...]) -> Iterator[inspect.Parameter]:
    """Yield a parameter per setting. None is its default: it then stays what a file or `Config` says."""
    from samrec.architecture import NAMES
    from samrec.concerns import without_effect
    from samrec.config import FILES, Config, Shown

    conditions = {
        "heads": not_with("--method", "gru4rec"),
        **dict.fromkeys(OF_RANKING, not_with("--method", "s3rec-pretraining")),
        **dict.fromkeys(without_effect({"pretrained": True}), not_with("--pretrained")),
    }
    for name in names or Config.model_fields:
        field = Config.model_fields[name]
        shown = [item for item in field.metadata if isinstance(item, Shown)]
        kind: Any = Path if name in FILES else field.annotation
        default = "set by --preset" if name in NAMES else field.default
        known = not field.is_required() and default is not None and default is not False
        flags = [item.flags for item in shown if item.flags] or [f"--{name.replace('_', '-')}"]
        option = typer.Option(
            *flags,
            help=f"{field.description}{f' (default: {default})' if known else ''}.",
            rich_help_panel=next((item.panel for item in shown if item.panel), None),
        )
        only_if = [conditions[name]] if name in conditions else []
        kind = Annotated[kind | None, option, *only_if]
        yield inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=kind)


def _panel(option: inspect.Parameter) -> str | None:
    panel: str | None = get_args(option.annotation)[1].rich_help_panel
    return panel
