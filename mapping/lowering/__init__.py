"""From a model, a machine and a recipe to one instruction stream a unit."""
