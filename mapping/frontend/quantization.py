"""What a folder says of how its weights are packed: `quantization_config`, checked."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mapping.frontend.config import Fields
from mapping.frontend.files import read_json_object, resolve_inside
from mapping.frontend.gpt_oss import MXFP4_BLOCK

KEY = "quantization_config"
LAYOUTS = ("awq-gemm", "awq-gemv", "gptq", "gptq-v2", "qserve", "mxfp4")
"""Layouts that can be read and written."""

_METHODS = ("awq", "gptq", "qserve", "mxfp4")
_SIDE_FILES = {"quantize_config.json": "gptq", "quant_config.json": None}
"""Files beside `config.json` where older tools put it, and the method that they are of."""


@dataclass(frozen=True)
class Scheme:
    """How the matrices of a folder are packed.

    Members
    -------
    layout : str
        One of `LAYOUTS`; ``gptq`` (version 1) and ``gptq-v2`` as labelled.
    group : int or None
        Inputs that share a scale (the second level's of QServe); None: all of a row.
    symmetric : bool or None
        Whether all zero points are 8; None: not said.
    act_order : bool
        Whether the inputs of a group need not be neighbours.
    kept : tuple of str
        Parts of names of matrices that are not packed.
    label : str
        The file that says so, for messages.
    """

    layout: str
    group: int | None
    symmetric: bool | None
    act_order: bool
    kept: tuple[str, ...]
    label: str


def find_scheme(folder: Path, config: Mapping[str, Any], path: Path) -> Scheme | None:
    """How the weights of a folder are packed; None: not at all.

    Parameters
    ----------
    folder : Path
    config : Mapping
        The content of `config.json`.
    path : Path
        Where that is, for messages.

    Raises
    ------
    InputError
        If it is a method or a variant that is not known here.
    """
    raw = config.get(KEY)
    if raw is not None:
        if not isinstance(raw, Mapping):
            raise Fields(config, str(path)).refuse(KEY, "an object")
        return _parse(Fields(raw, f"{path}: {KEY}"))
    for name, method in _SIDE_FILES.items():
        side = folder / name
        if side.is_file():
            content = read_json_object(resolve_inside(folder, name, "configuration"))
            return _parse(Fields(_modern(content, method), str(side)))
    return None


def _modern(content: Mapping[str, Any], method: str | None) -> dict[str, Any]:
    """The fields of an older file under their newer names."""
    renamed = {"w_bit": "bits", "wbits": "bits", "q_group_size": "group_size"}
    fields = {renamed.get(key, key): value for key, value in content.items()}
    if method is None:
        method = "qserve" if "wbits" in content else "awq"
    fields.setdefault("quant_method", method)
    return fields


def _parse(fields: Fields) -> Scheme:
    method = fields.raw.get("quant_method")
    if method == "qoq":
        method = "qserve"
    if method not in _METHODS:
        raise fields.refuse("quant_method", f"one of {', '.join(_METHODS)}, or unpacked weights")
    if method != "mxfp4" and fields.raw.get("bits") != 4:
        raise fields.refuse("bits", "4")
    group = MXFP4_BLOCK if method == "mxfp4" else _group(fields)
    kept = fields.raw.get("modules_to_not_convert") or []
    if not isinstance(kept, list) or not all(isinstance(name, str) for name in kept):
        raise fields.refuse("modules_to_not_convert", "a list of names")
    symmetric = act_order = None
    layout = method
    if method == "awq":
        layout = _awq_layout(fields)
    elif method == "gptq":
        layout = _gptq_layout(fields)
        symmetric = None if fields.raw.get("sym") is None else fields.flag("sym")
        act_order = fields.flag("desc_act")
    elif method == "qserve" and group is None:
        raise fields.refuse("group_size", "a number of inputs: groups, not a scale a channel")
    return Scheme(layout, group, symmetric, bool(act_order), tuple(kept), fields.label)


def _group(fields: Fields) -> int | None:
    group = fields.raw.get("group_size")
    if group == -1 and not isinstance(group, bool):
        return None
    if not isinstance(group, int) or isinstance(group, bool) or not 1 <= group <= 1 << 20:
        raise fields.refuse("group_size", "a number of inputs, or -1")
    return group


def _awq_layout(fields: Fields) -> str:
    if fields.raw.get("zero_point", True) is not True:
        raise fields.refuse("zero_point", "true, as the AWQ kernels have it")
    version = fields.raw.get("version", "gemm")
    if not isinstance(version, str) or version.lower() not in ("gemm", "gemv"):
        raise fields.refuse("version", "'gemm' or 'gemv'")
    return f"awq-{version.lower()}"


def _gptq_layout(fields: Fields) -> str:
    if fields.raw.get("dynamic"):
        raise fields.refuse("dynamic", "none: one format for all matrices")
    if fields.raw.get("pack_dtype", "int32") != "int32":
        raise fields.refuse("pack_dtype", "'int32'")
    # The newer name of the field comes first; a file may have both.
    key = "format" if "checkpoint_format" not in fields.raw else "checkpoint_format"
    layouts = {None: "gptq", "gptq": "gptq", "gptq_v2": "gptq-v2"}
    version = fields.raw.get(key)
    if not isinstance(version, str | None) or version not in layouts:
        raise fields.refuse(key, "'gptq' or 'gptq_v2'")
    return layouts[version]
