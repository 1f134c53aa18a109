"""Reports of structures that lie outside of a model's domain, for every way to predict."""

from __future__ import annotations

import warnings

import numpy as np
from numpy.typing import ArrayLike

from dimenet_tf.errors import UserError, check_choice
from dimenet_tf.predictor.domain import NOT_RECORDED, Domain
from dimenet_tf.structures.cells import Cells
from dimenet_tf.structures.limits import molecules_of

ACTIONS = ("flag", "error")


class DomainWatch:
    """Report the structures of a simulation or a file that lie outside of a domain.

    Parameters
    ----------
    domain : of the model; None where it is not recorded
    cutoff : Angstrom, of the model
    action : "flag" to warn once of each reason, "error" to raise a UserError

    Raises
    ------
    UserError
        If the action is unknown, or is "error" for a model that does not record its domain.
    """

    def __init__(self, domain: Domain | None, cutoff: float, action: str = "flag") -> None:
        check_choice("domain", action, ACTIONS)
        if domain is None and action == "error":
            raise UserError(f"domain='error' needs a model that records its domain; this one's is {NOT_RECORDED}")
        self.domain, self.cutoff, self.action = domain, cutoff, action
        self._warned: set[str] = set()

    def look(
        self,
        in_domain: ArrayLike | None,
        N: ArrayLike,
        Z: np.ndarray,
        R: np.ndarray,
        first: int | None = 0,
        stacklevel: int = 3,
        cells: Cells | None = None,
    ) -> None:
        """Warn, or raise a UserError, if a molecule lies outside.

        Parameters
        ----------
        in_domain : (molecules,) bool, as predicted with them; None for a model that does not record its domain
        N, Z, R : the molecules, flat
        first : number of the first one in messages; None for messages without numbers
        cells : of periodic structures
        """
        if in_domain is None or self.domain is None or np.all(in_domain):
            return
        atoms = list(molecules_of(np.asarray(N)))
        for molecule in np.flatnonzero(~np.asarray(in_domain)):
            name = "the structure" if first is None else f"molecule {first + molecule}"
            cell = None if cells is None else cells.select([molecule])
            reasons = self.domain.reasons(Z[atoms[molecule]], R[atoms[molecule]], self.cutoff, cell)
            if self.action == "error":
                raise UserError(f"{name} lies outside of the model's domain: {'; '.join(reasons.values())}")
            for reason in sorted(set(reasons) - self._warned):
                self._warned.add(reason)
                warnings.warn(
                    f"{name} lies outside of the model's domain: {reasons[reason]} (said once)", stacklevel=stacklevel
                )
