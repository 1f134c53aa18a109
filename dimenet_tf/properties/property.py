"""Everything that the library knows about one molecular property."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from dimenet_tf.errors import UserError
from dimenet_tf.properties.columns import Columns
from dimenet_tf.properties.references import NO_REFERENCE, Reference, check_energies, fit_reference
from dimenet_tf.structures.container import DataContainer
from dimenet_tf.structures.quantities import Quantity, find_property

MAX_ASYMMETRY = 1e-2  # of a tensor, relative to its largest component


@dataclasses.dataclass(frozen=True, eq=False)
class Property:
    """Property of molecules that a model learns or predicts.

    A data set makes one for each of its targets (`Dataset.properties`), and the head of a model has one for each of its
    predictions (`Head.properties`). Unit and shape come from the table of known quantities.

    Parameters
    ----------
    name : as in `data.target`
    quantity : unit, shape, and whether the property grows with the molecule
    columns : columns in arrays that hold several properties, such as labels and predictions; all if left out
    head : name of the head that computes it; None for the default of the model, see `choose_head`
    references, standardize : how reference values and scale are fitted, see `fit_reference`
    has_forces : whether its negative gradient is learned as well
    has_stress : whether its derivative by strain is learned as well
    reference : reference values and scale; without effect until they are fitted

    Examples
    --------
    >>> from dimenet_tf.properties.property import Property
    >>> dipole = Property.of("dipole")
    >>> dipole.unit, dipole.shape, dipole.extensive
    ('e*Ang', (3,), True)
    """

    name: str
    quantity: Quantity
    columns: slice = dataclasses.field(default_factory=lambda: slice(None))
    head: str | None = None
    references: str | Mapping[str, float] = "auto"
    standardize: bool = True
    has_forces: bool = False
    has_stress: bool = False
    reference: Reference = NO_REFERENCE

    @classmethod
    def of(cls, name: str, unit: str | None = None, **options: Any) -> Property:
        """Make a property from its entry in the table of known quantities.

        Parameters
        ----------
        name : of the property
        unit : of a property that the table does not contain
        **options : further fields
        """
        return cls(name, find_property(name, unit), **options)

    def __str__(self) -> str:
        return f"{self.name} in {self.unit}" if self.unit else self.name

    @property
    def unit(self) -> str:
        """Unit of labels and predictions; empty if unknown."""
        return self.quantity.unit

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one molecule's value: () for a number, (3,) for a vector, (3, 3) for a tensor."""
        return self.quantity.shape

    @property
    def extensive(self) -> bool:
        """Whether the property grows with the molecule."""
        return self.quantity.extensive

    @property
    def fits_elements(self) -> bool:
        """Whether reference values of the elements are fitted to the labels."""
        fit = self.references == "fit" or (self.references == "auto" and self.extensive)
        return fit and self.shape != (3,)

    def check_labels(self, data: DataContainer) -> None:
        """Raise a UserError if a tensor is not symmetric, or if all molecules have the same value."""
        labels, labelled = data.labels(self.name), np.flatnonzero(data.labelled(self.name))
        labels = labels[labelled]
        if not len(labels):
            return
        if self.shape == (3, 3):
            skew = np.abs(labels - labels.transpose(0, 2, 1)).max(axis=(1, 2))
            worst = int(skew.argmax())
            if skew[worst] > MAX_ASYMMETRY * np.abs(labels[worst]).max():
                raise UserError(f"{data.source}: '{self.name}' of molecule {labelled[worst]} is not symmetric")
        if labels.std() == 0:
            raise UserError(f"{data.source}: all molecules have the same '{self.name}'; there is nothing to learn")

    def fitted(self, data: DataContainer, train: np.ndarray, additive: bool = True) -> Property:
        """Return the property with reference values and scale fitted to the training molecules.

        The scale of an energy with forces is the root mean square of the forces times 1 Angstrom.

        Parameters
        ----------
        data : labels
        train : (n,) int, the training molecules
        additive : whether its head adds reference values

        Raises
        ------
        UserError
            For reference energies that do not fit the labels, see `check_energies`.
        """
        fit = fit_reference(data, self.name, self.quantity, train, self.references, self.standardize, additive)
        if additive and not data.outliers:  # outliers that the user keeps would distort the fit
            check_energies(data, self.name, self.quantity, train, self.references, fit)
        if self.has_forces and self.standardize:
            forces = data.select(train).labels("forces")
            forces = forces[np.isfinite(forces)]
            fit = fit._replace(scale=float(np.sqrt((forces**2).mean())) or 1.0)
        return dataclasses.replace(self, reference=fit)

    def spread(self, data: DataContainer) -> float:
        """Return the standard deviation of all labels, by which errors are divided for std. MAE and logMAE.

        It does not depend on the molecules' orientation: for vectors it is the root mean square of the components, for
        tensors that of the components' differences from the mean isotropic tensor.
        """
        return fit_reference(data, self.name, self.quantity, np.arange(len(data)), "mean").scale

    def baseline(self, data: DataContainer, train: np.ndarray) -> np.ndarray:
        """Predict labels by a least-squares fit per element, (molecules, *shape); zero for vectors."""
        fit = fit_reference(data, self.name, self.quantity, train, "fit")
        return fit.baseline(data.composition(), self.shape)

    def scaled(self, differences: Any) -> Any:
        """Return the property's part of (molecules, columns) differences, divided by its scale."""
        return differences[:, self.columns] / self.reference.scale


def side_by_side(properties: Iterable[Property]) -> dict[str, Property]:
    """Return properties by name, each with its columns in arrays that hold all of them.

    Examples
    --------
    >>> both = side_by_side([Property.of("energy"), Property.of("dipole")])
    >>> both["energy"].columns, both["dipole"].columns
    (slice(0, 1, None), slice(1, 4, None))
    """
    properties = list(properties)
    columns = Columns({each.name: each.shape for each in properties})
    return {each.name: dataclasses.replace(each, columns=columns[each.name]) for each in properties}
