"""What SAM shares with the optimizer that it wraps: parameters, their groups, the radius of each."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim.optimizer import Optimizer

from samrec.sam.ascent import Kept
from samrec.sam.checks import check_radius, check_storages
from samrec.sam.states import loadable
from samrec.sam.variants import Variant


class Wrapper(Optimizer):
    """An optimizer whose groups, state and defaults are those of the one it wraps, and a radius beside.

    Args:
        base: the optimizer to wrap.
        rho: radius of the groups that have none of their own.
        adaptive: whether the ball is ASAM's.
        variant: whose memory the state dict holds.
    """

    def __init__(self, base: Optimizer, rho: float | Tensor, adaptive: bool, variant: Variant) -> None:
        self.base = base
        self.adaptive = adaptive
        self.variant = variant
        self._kept = Kept()
        self._cleared = False  # whether gradients were, since somebody set this
        self._radius = "sam_rho" if "rho" in base.defaults else "rho"
        super().__init__(base.param_groups, {**base.defaults, self._radius: rho})
        self._link()

    def _link(self) -> None:
        """Share one set of groups and one state: schedulers and state dicts see those of `base`."""
        self.param_groups = self.base.param_groups
        self.state = self.base.state

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group, with what it leaves open from `defaults`; the next step climbs anew.

        Raises:
            ValueError: its rho is negative or not finite, or a parameter is here already, or its storage.
        """
        check_radius(param_group.get(self._radius, 0.0))
        if self.param_groups is not self.base.param_groups:  # in the constructor
            super().add_param_group(param_group)
            check_storages(self._parameters())
            return
        self.base.add_param_group(param_group)
        try:
            check_storages(self._parameters())
        except ValueError:
            self.param_groups.pop()
            raise
        self.param_groups[-1].setdefault(self._radius, self.defaults[self._radius])
        self._kept.steps = 0

    @property
    def rho(self) -> float | Tensor:
        """Radius of all groups; setting it sets all. Reading it raises ValueError where they differ."""
        first, *others = self._radii()
        if any(
            first is not o and (isinstance(first, Tensor) or isinstance(o, Tensor) or first != o)
            for o in others
        ):
            raise ValueError(f"the groups differ in rho; read param_groups[i][{self._radius!r}]")
        return first

    @rho.setter
    def rho(self, rho: float | Tensor) -> None:
        for group in self.param_groups:
            group[self._radius] = rho

    @property
    def _plain(self) -> bool:  # to look at a tensor would wait for it
        radii = self._radii(perturbed=True)
        return all(not isinstance(rho, Tensor) and rho == 0 for rho in radii)

    def _radii(self, perturbed: bool = False) -> list[float | Tensor]:
        return [g[self._radius] for g in self.param_groups if not perturbed or g.get("perturb", True)]

    @property
    def _device(self) -> torch.device:
        device: torch.device = self.param_groups[0]["params"][0].device
        return device

    def _parameters(self) -> list[Tensor]:
        return [p for group in self.param_groups for p in group["params"]]

    def _perturbed(self, saved: Sequence[dict[str, Any]] = ()) -> list[Tensor]:
        """Return the parameters that move, as the groups say, or those of a state that is to be loaded."""
        pairs = zip(saved or self.param_groups, self.param_groups, strict=False)
        return [p for said, group in pairs if said.get("perturb", True) for p in group["params"]]

    def zero_grad(self, set_to_none: bool = True) -> None:
        self._cleared = True
        super().zero_grad(set_to_none)

    def state_dict(self) -> dict[str, Any]:
        """Return the wrapped optimizer's state and groups, and where the ascent stands."""
        for before in self._optimizer_state_dict_pre_hooks.values():
            before(self)
        kept = self._kept.saved(self._perturbed(), self._parameters(), self.variant.name)
        found = {**self.base.state_dict(), **kept}
        for after in self._optimizer_state_dict_post_hooks.values():
            found = after(self, found) or found
        return found

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load what `state_dict` returned, here, in the wrapped optimizer, or in another SAM.

        Where a state is not of this class, the ascent begins anew, and what its groups do not say of rho
        and `perturb` stays.

        Raises:
            ValueError: it does not fit the parameters or the wrapped optimizer.
        """
        for before in self._optimizer_load_state_dict_pre_hooks.values():
            state_dict = before(self, state_dict) or state_dict
        found = loadable(state_dict, self.base, self._radius, self.adaptive)
        perturbed = self._perturbed(found["param_groups"])
        kept = Kept.loaded(found, perturbed, self._parameters(), self.variant.name)  # before anything changes
        self.base.load_state_dict({"state": found["state"], "param_groups": found["param_groups"]})
        self._link()
        self._kept = kept
        for after in self._optimizer_load_state_dict_post_hooks.values():
            after(self)
