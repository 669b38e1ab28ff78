"""Matrix products of whole models: any known Llama, and the shapes of the published comparison."""

from emulator.pe.array_model import Product
from hw.spec.errors import InputError

__all__ = ["SHAPES", "model_products"]

#: Hidden width, feed-forward width, layers, heads, tokens of one input; OPT: Zhang et al. 2022, table 1;
#: ViT: Dosovitskiy et al. 2021, table 1, for images of 224 x 224 in patches of 16 or 14.
SHAPES = {
    "opt-6.7b": (4096, 16384, 32, 32, None),
    "vit-b": (768, 3072, 12, 12, 197),
    "vit-h": (1280, 5120, 32, 16, 257),
}


def model_products(name: str, tokens: int) -> list[Product]:
    """Products of one forward pass over a prompt, attention included.

    Parameters
    ----------
    name : str
        A name that `lpu list models` prints, or one of `SHAPES`.
    tokens : int
        Length of the prompt; images have their own length.

    Raises
    ------
    InputError
        If the name is unknown.
    """
    if name in SHAPES:
        hidden, inner, layers, heads, own = SHAPES[name]
        length = own or tokens
        head = hidden // heads
        return [
            Product(length, hidden, hidden, 4 * layers),
            Product(length, hidden, inner, layers),
            Product(length, inner, hidden, layers),
            *_attention(length, head, heads * layers, causal=own is None),
        ]
    from mapping.frontend.model import list_models

    known = {model.name: model.config for model in list_models()}
    config = known.get(name)
    if config is None or not hasattr(config, "query_width"):
        names = ", ".join(dict.fromkeys([*known, *SHAPES]))
        raise InputError(f"model: expected one of {names}, found {name!r}")
    hidden, layers = config.hidden_size, config.layers
    return [
        Product(tokens, hidden, config.query_width, layers),
        Product(tokens, hidden, config.key_width, 2 * layers),
        Product(tokens, config.query_width, hidden, layers),
        Product(tokens, hidden, config.intermediate_size, 2 * layers),
        Product(tokens, config.intermediate_size, hidden, layers),
        Product(1, hidden, config.vocabulary_size),
        *_attention(tokens, config.head_dim, config.heads * layers, causal=True),
    ]


def _attention(tokens: int, head: int, count: int, causal: bool) -> list[Product]:
    """Scores and weighted values of each head; tokens after the own one are left out."""
    seen = (tokens + 1) // 2 if causal else tokens
    return [
        Product(tokens, head, seen, count, of_activations=True),
        Product(tokens, seen, head, count, of_activations=True),
    ]
