"""MPE's instruction stream: the matrix products of every layer and of the output head."""

from hw.spec.instructions import Condition, Unit
from mapping.lowering.assembler import Assembler, Count, Place, fixed, tiled, units
from mapping.lowering.levels import HEAD, HEAD_TILE, PART, TILE, key_blocks, key_tiles, value_steps
from mapping.lowering.plan import Plan, Segment
from mapping.lowering.tiles import CREDITS, MatrixPlan

_LD, _SFU = units(Unit.LD), units(Unit.SFU)


def lower_matrix(plan: Plan) -> Assembler:
    """Instruction stream of MPE."""
    a = Assembler(Unit.MPE)
    for _ in range(CREDITS):
        a.sync(signal=_LD)
    with a.token_loop():
        for segment in plan.segments:
            with a.loop(fixed(segment.layers)):
                _layer(a, plan, segment)
        with a.unless(Condition.PREFILL):
            a.sync(wait=_SFU)
            _matrix(a, plan, plan.head_matrix, "norm", "logits", HEAD_TILE, signal=_SFU)
    return a


def _layer(a: Assembler, plan: Plan, segment: Segment) -> None:
    def product(name: str, activation: str, result: str) -> None:
        _matrix(a, plan, segment.matrices[name], activation, result, TILE)

    a.sync(wait=_SFU)
    for name in ("k", "v", "q"):
        product(f"self_attn.{name}_proj", "norm", name)
        a.sync(signal=_SFU)
    a.sync(wait=_SFU)
    _scores(a, plan)
    a.sync(wait=_SFU)
    _values(a, plan)
    a.sync(wait=_SFU)
    product("self_attn.o_proj", "attention", "o")
    a.sync(signal=_SFU)
    a.sync(wait=_SFU)
    product("mlp.gate_proj", "norm", "gate")
    product("mlp.up_proj", "norm", "up")
    a.sync(signal=_SFU)
    a.sync(wait=_SFU)
    product("mlp.down_proj", "ffn", "down")
    a.sync(signal=_SFU)


def _place(
    plan: Plan, buffer: str, name: str, offset: int = 0, strides: dict[int, int] | None = None
) -> Place:
    start = {"activation": plan.activation, "result": plan.result, "scale": plan.matrix_scales}[
        buffer
    ].taken[name][0]
    if buffer == "activation":
        start = start * plan.spec.lanes // 4
    return Place(start + offset, strides or {})


def _product(a: Assembler, wide: bool, group_steps: int, blocks: Count, steps: Count,
             activation: Place, result: Place, scale: Place, pop: bool = True, wait: int = 0, signal: int = 0) -> None:  # fmt: skip
    a.execute(
        wait,
        signal,
        wide=int(wide),
        scaled=int(group_steps > 0),
        first=1,
        last=1,
        pop=int(pop),
        group_steps=group_steps,
        **blocks.fields("blocks"),
        **steps.fields("steps"),
        **activation.fields("activation"),
        **result.fields("result"),
        **scale.fields("scale"),
    )


def _matrix(
    a: Assembler,
    plan: Plan,
    matrix: MatrixPlan,
    activation: str,
    result: str,
    level: int,
    signal: int = 0,
) -> None:
    rows = plan.spec.matrix_rows // plan.spec.lanes
    with a.loop(fixed(matrix.tiles)):
        _product(
            a,
            matrix.format.bits == 8,
            matrix.group_steps,
            tiled(matrix.blocks, matrix.tile_blocks, level),
            fixed(matrix.steps),
            _place(plan, "activation", activation),
            _place(plan, "result", result, 0, {level: matrix.tile_blocks * rows}),
            _place(plan, "scale", "x"),
            wait=_LD,
            signal=_LD | signal,
        )


def _scores(a: Assembler, plan: Plan) -> None:
    """Every query head of a group times the keys of its KV head, tile by tile."""
    heads, groups, rows = (
        plan.config.kv_heads,
        plan.groups,
        plan.spec.matrix_rows // plan.spec.lanes,
    )
    with a.loop(fixed(heads)), a.loop(key_tiles(plan)):
        for g in range(groups):
            last = g == groups - 1
            _product(
                a,
                True,
                0,
                key_blocks(plan),
                fixed(plan.head // plan.spec.step_elements(8)),
                _place(plan, "activation", "q", g * plan.head // 4, {HEAD: groups * plan.head // 4}),
                _place(plan, "result", "scores", g * heads * plan.context_rows,
                       {HEAD: plan.context_rows, PART: plan.key_tile_blocks * rows}),
                _place(plan, "scale", "q", g, {HEAD: groups}),
                pop=last,
                wait=0 if g else _LD,
                signal=_LD if last else 0,
            )  # fmt: skip
    a.sync(signal=_SFU)


def _values(a: Assembler, plan: Plan) -> None:
    """Every query head's probabilities times the values of its KV head, block by block of dimensions."""
    heads, groups, rows = (
        plan.config.kv_heads,
        plan.groups,
        plan.spec.matrix_rows // plan.spec.lanes,
    )
    with a.loop(fixed(heads)), a.loop(fixed(plan.head_blocks)):
        for g in range(groups):
            last = g == groups - 1
            _product(
                a,
                True,
                0,
                fixed(1),
                value_steps(plan),
                _place(
                    plan,
                    "activation",
                    "p",
                    g * heads * plan.context // 4,
                    {HEAD: plan.context // 4},
                ),
                _place(
                    plan,
                    "result",
                    "attention",
                    g * heads * plan.head_rows,
                    {HEAD: plan.head_rows, PART: rows},
                ),
                _place(plan, "scale", "p", g * heads, {HEAD: 1}),
                pop=last,
                wait=0 if g else _LD,
                signal=_LD if last else 0,
            )
    a.sync(signal=_SFU)
