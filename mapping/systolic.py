"""Lowering of whole models to the products of matrices that a systolic array computes."""

import math
from collections.abc import Iterator

from emulator.systolic_gemm import Gemm
from hw.spec.errors import InputError
from hw.spec.systolic import SystolicSpec
from hw.spec.systolic_parts import RESULT_BITS
from mapping.frontend.config import ModelConfig
from mapping.graph import build_graph
from mapping.graph.ir import Graph, Node, Operator

__all__ = ["decode_gemms", "model_gemms", "prefill_gemms"]


def prefill_gemms(
    spec: SystolicSpec,
    config: ModelConfig,
    prompt_length: int,
    *,
    batch: int = 1,
    cache_bits: int | None = None,
    result_bits: int = RESULT_BITS,
) -> list[Gemm]:
    """All products of the processing of prompts: projections, attention, and logits of the last position.

    Parameters
    ----------
    spec : SystolicSpec
        The array; it decides in how many parts an operand is multiplied.
    config : ModelConfig
        The model.
    prompt_length : int
        Tokens of each prompt.
    batch : int
        Prompts that are processed together; projections take their tokens as rows of one matrix.
    cache_bits : int or None
        Bits of cached keys and values, the second operands of attention; None: those of the element's weights.
        Where they are more, attention takes several passes.
    result_bits : int
        Bits of outputs in memory.

    Notes
    -----
    Scores are computed for all pairs of positions, the causal half that is masked included. Query heads that
    share a key head are rows of one product.
    """
    _check(prompt_length=prompt_length, batch=batch)
    step = _Step(spec, config, batch, cache_bits, result_bits)
    return list(step.products(prompt_length, prompt_length))


def decode_gemms(
    spec: SystolicSpec,
    config: ModelConfig,
    prompt_length: int,
    tokens: int,
    *,
    batch: int = 1,
    cache_bits: int | None = None,
    result_bits: int = RESULT_BITS,
) -> list[Gemm]:
    """All products of `tokens` steps behind a prompt, one token of each sequence a step.

    The token generated with the prompt is not among them. Parameters as for `prefill_gemms`.
    """
    _check(prompt_length=prompt_length, tokens=tokens, batch=batch)
    step = _Step(spec, config, batch, cache_bits, result_bits)
    positions = range(prompt_length + 1, prompt_length + tokens + 1)
    return [gemm for position in positions for gemm in step.products(1, position)]


def model_gemms(
    spec: SystolicSpec, config: ModelConfig, prompt_length: int, tokens: int, *, batch: int = 1
) -> list[Gemm]:
    """All products of a request: the prompt, and every generated token behind the first."""
    gemms = prefill_gemms(spec, config, prompt_length, batch=batch)
    if tokens > 1:
        gemms += decode_gemms(spec, config, prompt_length, tokens - 1, batch=batch)
    return gemms


def _check(**values: int) -> None:
    for name, value in values.items():
        if value < 1:
            raise InputError(f"{name}: expected at least 1, found {value}")


class _Step:
    """Products of one step of a model on one array."""

    def __init__(
        self,
        spec: SystolicSpec,
        config: ModelConfig,
        batch: int,
        cache_bits: int | None,
        result_bits: int,
    ) -> None:
        self.config = config
        self.graph = build_graph(config)
        self.batch = batch
        self.cache_bits = cache_bits
        self.result_bits = result_bits
        self.planes = 1 if cache_bits is None else math.ceil(cache_bits / spec.code_bits)

    def products(self, rows: int, positions: int) -> Iterator[Gemm]:
        """Of `rows` new tokens of each sequence that see `positions`, in the order of the graph."""
        config = self.config
        if positions > config.maximum_positions:
            raise InputError(
                f"{config.name}: positions: expected at most {config.maximum_positions}, "
                f"found {positions}"
            )
        for node in self.graph.nodes:
            if node.operator is Operator.LINEAR:
                n, k = _matrix(self.graph, node)
                # The next token needs the logits of the last position only.
                m = self.batch * (1 if node.output in self.graph.outputs else rows)
                yield Gemm(m, k, n, name=_short(node), result_bits=self.result_bits)
            elif node.operator is Operator.ATTENTION:
                width = config.head_dim
                yield self._attention(node, "scores", rows, width, positions)
                yield self._attention(node, "values", rows, positions, width)

    def _attention(self, node: Node, part: str, rows: int, k: int, n: int) -> Gemm:
        return Gemm(
            rows * self.config.heads_per_kv_head,
            k,
            n,
            self.batch * self.config.kv_heads,
            f"{_short(node)}_{part}",
            weight_bits=self.cache_bits,
            result_bits=self.result_bits,
            planes=self.planes,
        )


def _short(node: Node) -> str:
    """Name without the layer, so that equal products of all layers are equal."""
    return node.name.rpartition(".")[2]


def _matrix(graph: Graph, node: Node) -> tuple[int, int]:
    n, k = graph.tensor(node.inputs[1]).shape
    assert isinstance(n, int) and isinstance(k, int)
    return n, k
