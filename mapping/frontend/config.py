"""The shape of a model: what `config.json` says, checked, under the names used here."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from hw.spec.errors import InputError
from mapping.frontend.files import shown

LLAMA = "LlamaForCausalLM"
MISTRAL = "MistralForCausalLM"
OPT = "OPTForCausalLM"
SUPPORTED_ARCHITECTURES = (LLAMA, MISTRAL, OPT, "GptOssForCausalLM")
FLIGHT_ARCHITECTURES = (LLAMA, MISTRAL, OPT)
"""Those that the flight processor runs."""

_LARGEST_WIDTH = 1 << 24
_LARGEST_NUMBER = 1e30
_LARGEST_LAYERS = 1024  # bounds what a hostile file can make the loader enumerate


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """A decoder-only transformer of the Llama family, or of OPT.

    Members
    -------
    name : str
        What to call the model in reports.
    architecture : str
        The class name in `config.json`.
    hidden_size, intermediate_size, vocabulary_size : int
        Widths of the residual stream, of the feed-forward network, and of the logits.
    layers, heads, kv_heads, head_dim : int
        `heads` is a multiple of `kv_heads`; `head_dim` is even, and ``heads * head_dim`` need not
        equal `hidden_size`.
    rms_norm_eps : float
        Added to the mean square, or to the variance, under the root.
    rope_theta : float
        Base of the rotary frequencies.
    rope_scaling : Mapping or None
        None, or `kind` ``"linear"`` with `factor`, or `kind` ``"llama3"`` with `factor`,
        `low_freq_factor`, `high_freq_factor` and `original_max_position_embeddings`.
        `mapping.rope` interprets it.
    tie_word_embeddings : bool
        Whether the logits use the embedding matrix.
    maximum_positions : int
        Longest sequence.
    bos_token_ids, eos_token_ids : tuple[int, ...]
        Tokens that begin and that end a text; either may be empty.
    activation : str
        ``"silu"`` of the feed-forward gate, or ``"relu"`` of the feed-forward network of OPT, which has no gate.
    """

    name: str
    architecture: str
    hidden_size: int
    intermediate_size: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    vocabulary_size: int
    rms_norm_eps: float
    rope_theta: float
    rope_scaling: Mapping[str, Any] | None = field(default=None, hash=False)
    tie_word_embeddings: bool
    maximum_positions: int
    bos_token_ids: tuple[int, ...]
    eos_token_ids: tuple[int, ...]
    activation: str

    @property
    def opt(self) -> bool:
        """LayerNorm, ReLU, learned positions and biases, instead of RMSNorm, a gate, rotation and none."""
        return self.architecture == OPT

    @property
    def query_width(self) -> int:
        """Rows of the query projection."""
        return self.heads * self.head_dim

    @property
    def key_width(self) -> int:
        """Rows of the key projection, and of the value projection."""
        return self.kv_heads * self.head_dim

    @property
    def heads_per_kv_head(self) -> int:
        """Query heads that share one key and value head."""
        return self.heads // self.kv_heads


class Fields:
    """Typed access to a parsed JSON object; a wrong value becomes an `InputError` naming its field."""

    def __init__(self, raw: Mapping[str, Any], label: str) -> None:
        self.raw = raw
        self.label = label

    def refuse(self, key: str, expected: str) -> InputError:
        found = shown(self.raw[key]) if key in self.raw else "nothing"
        return InputError(f"{self.label}: {key}: expected {expected}, found {found}")

    def whole(self, key: str, default: int | None = None, limit: int = _LARGEST_WIDTH) -> int:
        value = self.raw.get(key)
        if value is None:
            value = default
        if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= limit:
            raise self.refuse(key, f"a whole number from 1 to {limit}")
        return value

    def positive(self, key: str, default: float | None = None) -> float:
        value = self.raw.get(key)
        if value is None:
            value = default
        if not isinstance(value, (int, float)) or isinstance(value, bool):
            raise self.refuse(key, "a positive number")
        # Comparing before converting keeps an integer of a thousand digits from overflowing; NaN and
        # infinity fail the comparison too.
        if not 0 < value < _LARGEST_NUMBER:
            raise self.refuse(key, "a positive number")
        return float(value)

    def flag(self, key: str, default: bool = False) -> bool:
        value = self.raw.get(key)
        if value is not None and not isinstance(value, bool):
            raise self.refuse(key, "true or false")
        return default if value is None else value

    def token_ids(self, key: str, vocabulary_size: int) -> tuple[int, ...]:
        value = self.raw.get(key)
        values = [] if value is None else value if isinstance(value, list) else [value]
        for token in values:
            if not isinstance(token, int) or isinstance(token, bool):
                raise self.refuse(key, "a token id or a list of them")
            if not 0 <= token < vocabulary_size:
                raise self.refuse(key, f"token ids below vocab_size {vocabulary_size}")
        return tuple(values)


def parse_config(raw: Mapping[str, Any], name: str, label: str) -> ModelConfig:
    """Return the configuration that the object of a `config.json` describes.

    Defaults are those of the reference implementation; what this project cannot run is refused here,
    before any weight is read.

    Parameters
    ----------
    raw : Mapping
        The parsed JSON object.
    name : str
        Name of the model.
    label : str
        The file, for messages.

    Raises
    ------
    InputError
        If the architecture is unknown, a field is missing or of the wrong kind, or the fields
        contradict each other.
    """
    # Here, because these modules need `ModelConfig` and `Fields`.
    from mapping.frontend.gpt_oss import parse_gpt_oss
    from mapping.frontend.gpt_oss_original import is_original_config, translated_config
    from mapping.frontend.opt import parse_opt

    fields = Fields(raw, label)
    if is_original_config(raw):
        fields = Fields(translated_config(fields), label)
    architecture = _parse_architecture(fields)
    if architecture == OPT:
        return parse_opt(fields, name)
    if architecture not in FLIGHT_ARCHITECTURES:
        return parse_gpt_oss(fields, name)
    mistral = architecture == MISTRAL
    _refuse_unsupported(fields, mistral)
    hidden_size = fields.whole("hidden_size")
    heads = fields.whole("num_attention_heads")
    # Files of the first Llama models lack num_key_value_heads.
    kv_heads = fields.whole("num_key_value_heads", default=8 if mistral else heads)
    if heads % kv_heads:
        raise fields.refuse("num_key_value_heads", f"a divisor of num_attention_heads {heads}")
    if raw.get("head_dim") is None and hidden_size % heads:
        raise fields.refuse(
            "head_dim",
            f"a number because hidden_size {hidden_size} is no multiple of {heads} heads",
        )
    head_dim = fields.whole("head_dim", default=hidden_size // heads)
    if head_dim % 2:
        raise fields.refuse(
            "head_dim", f"an even number of elements to rotate in pairs (not {head_dim})"
        )
    vocabulary_size = fields.whole("vocab_size")
    theta, scaling = _parse_rope(fields)
    return ModelConfig(
        name=name,
        architecture=architecture,
        hidden_size=hidden_size,
        intermediate_size=fields.whole("intermediate_size"),
        layers=fields.whole("num_hidden_layers", limit=_LARGEST_LAYERS),
        heads=heads,
        kv_heads=kv_heads,
        head_dim=head_dim,
        vocabulary_size=vocabulary_size,
        rms_norm_eps=fields.positive("rms_norm_eps", default=1e-6),
        rope_theta=theta,
        rope_scaling=scaling,
        tie_word_embeddings=fields.flag("tie_word_embeddings"),
        maximum_positions=fields.whole(
            "max_position_embeddings", default=131072 if mistral else 2048
        ),
        bos_token_ids=fields.token_ids("bos_token_id", vocabulary_size),
        eos_token_ids=fields.token_ids("eos_token_id", vocabulary_size),
        activation="silu",
    )


def require_flight(config: ModelConfig, what: str) -> None:
    """Refuse a model of a family that only the hardwired system knows; ``what`` was asked for.

    Raises
    ------
    InputError
        If the flight processor cannot run the family.
    """
    if config.architecture not in FLIGHT_ARCHITECTURES:
        raise InputError(
            f"{config.name}: architecture: expected {' or '.join(FLIGHT_ARCHITECTURES)} for {what}, "
            f"found {config.architecture}: see lpu hardwire system"
        )


def _parse_architecture(fields: Fields) -> str:
    value = fields.raw.get("architectures")
    if not isinstance(value, list) or len(value) != 1 or value[0] not in SUPPORTED_ARCHITECTURES:
        raise fields.refuse("architectures", f"one of {', '.join(SUPPORTED_ARCHITECTURES)}")
    return value[0]


def _refuse_unsupported(fields: Fields, mistral: bool) -> None:
    """Refuse what would change the arithmetic if it were ignored."""
    for key in ("attention_bias", "mlp_bias"):
        if fields.flag(key):
            raise fields.refuse(
                key, "false: projections with biases are not supported, use a model without them"
            )
    if fields.raw.get("hidden_act", "silu") not in ("silu", "swish"):
        raise fields.refuse("hidden_act", "'silu'")
    # The reference implementation uses a window of 4096 where a Mistral file does not say.
    window = fields.raw.get("sliding_window", "a default of 4096" if mistral else None)
    if window is not None and mistral:
        raise fields.refuse("sliding_window", "null: attention with a window is not supported")


def _parse_rope(fields: Fields) -> tuple[float, dict[str, Any] | None]:
    """Return theta and the scaling, from the older fields or the newer ``rope_parameters``."""
    key = "rope_parameters" if fields.raw.get("rope_parameters") is not None else "rope_scaling"
    raw = fields.raw.get(key)
    if raw is None:
        raw = {}
    if not isinstance(raw, dict):
        raise fields.refuse(key, "an object or null")
    inner = Fields(raw, f"{fields.label}: {key}")
    theta = (inner if "rope_theta" in raw else fields).positive("rope_theta", default=10000.0)
    for place in (fields, inner):
        if place.positive("partial_rotary_factor", default=1.0) != 1.0:
            raise place.refuse("partial_rotary_factor", "1, rotation of whole heads")
    kind_key = "rope_type" if "rope_type" in raw else "type"
    match raw.get(kind_key, "default" if key == "rope_parameters" or not raw else None):
        case "default":
            return theta, None
        case "linear":
            return theta, {"kind": "linear", "factor": inner.positive("factor")}
        case "llama3":
            scaling: dict[str, Any] = {"kind": "llama3"}
            for name in ("factor", "low_freq_factor", "high_freq_factor"):
                scaling[name] = inner.positive(name)
            original = inner.whole("original_max_position_embeddings")
            scaling["original_max_position_embeddings"] = original
            if scaling["high_freq_factor"] <= scaling["low_freq_factor"]:
                raise inner.refuse("high_freq_factor", "more than low_freq_factor")
            return theta, scaling
        case _:
            raise inner.refuse(kind_key, "'default', 'linear' or 'llama3'")
