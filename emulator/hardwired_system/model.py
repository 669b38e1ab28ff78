"""What the machine has to know of a model: widths and counts."""

from dataclasses import dataclass

from hw.spec.errors import InputError


@dataclass(frozen=True, kw_only=True)
class SystemModel:
    """A mixture-of-experts transformer as the 16-chip machine divides it.

    Members
    -------
    name : str
    layers, hidden, heads, kv_heads, head_dim, vocabulary : int
    experts, experts_per_token, inner : int
        Feed-forward networks of a layer, how many a token uses, and their inner width.
    windowed : tuple[bool, ...]
        Which layers attend to the newest `window` positions alone.
    window, maximum_positions : int
    """

    name: str
    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    vocabulary: int
    experts: int
    experts_per_token: int
    inner: int
    windowed: tuple[bool, ...]
    window: int
    maximum_positions: int

    def check_grid(self, rows: int, columns: int) -> None:
        """Raise `InputError` unless the model divides evenly among rows and columns of chips."""
        chips = rows * columns
        for what, count, parts in (
            ("hidden size", self.hidden, chips),
            ("attention heads", self.heads, chips),
            ("key and value heads", self.kv_heads, columns),
            ("experts", self.experts, chips),
            ("vocabulary", self.vocabulary, chips),
        ):
            if count % parts:
                raise InputError(
                    f"{self.name}: {what}: expected a multiple of {parts} for {rows} x {columns} "
                    f"chips, found {count}"
                )

    @property
    def full_layers(self) -> int:
        """Layers that attend to every position."""
        return self.layers - sum(self.windowed)

    def attended(self, layer: int, context: int) -> int:
        """Positions that a layer attends to when there are `context`."""
        return min(context, self.window) if self.windowed[layer] else context
