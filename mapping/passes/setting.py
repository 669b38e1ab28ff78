"""What every pass may know beside the graph."""

from dataclasses import dataclass

from mapping.lowering.geometry import Geometry
from mapping.recipe import Recipe


@dataclass(frozen=True)
class Setting:
    """The machine and the recipe that a graph is compiled for.

    Attributes
    ----------
    geometry : Geometry
        The model's shapes on the machine.
    recipe : Recipe
    credits : int
        Tiles that the rings of the matrix engine hold at once.
    """

    geometry: Geometry
    recipe: Recipe
    credits: int
