"""Figures that others published of LLaMA2-7B on these boards, beside what is wanted of this project there."""

from dataclasses import dataclass

__all__ = ["FIGURES", "Figure"]

PAPER = "FlightLLM, FPGA 2024"
RERUN = "an independent run of FlightLLM's released U280 design"


@dataclass(frozen=True)
class Figure:
    """One figure of one machine.

    Attributes
    ----------
    name : str
    target, recipe : str
        Bundled ones.
    key : str
        Of `mapping.estimate.estimate`, or `slope` (cycles for each token of context), `power` (watts in decode),
        `tokens_per_joule`, or a kind of resource (`hw.spec.board.KINDS`).
    prompt_length : int
        Tokens of context at which it is taken; of a slope the shorter of two.
    published : float or None
    source : str
        Of the published figure.
    least, most : float or None
        What is wanted.
    unit : str
        `%` for shares.
    """

    name: str
    target: str
    recipe: str
    key: str
    prompt_length: int
    published: float | None = None
    source: str = ""
    least: float | None = None
    most: float | None = None
    unit: str = ""

    def met(self, value: float) -> bool | None:
        """Whether a value is as wanted; None if nothing is."""
        if self.least is None and self.most is None:
            return None
        over = self.least is None or value >= self.least
        return over and (self.most is None or value <= self.most)

    @property
    def wanted(self) -> str:
        """What is wanted, as text."""
        factor = 100 if self.unit == "%" else 1
        least = None if self.least is None else f"{self.least * factor:g}"
        most = None if self.most is None else f"{self.most * factor:g}"
        if least is not None and most is not None:
            return f"{least} to {most}"
        if least is not None:
            return f"at least {least}"
        return "-" if most is None else f"at most {most}"


_DECODE = "decode_tokens_per_second"
_OWN = ("flightllm-u280", "flightllm-artifact")
_U280 = ("u280", "flightllm-artifact")
_VHK158 = ("vhk158", "flightllm-paper")

FIGURES = (
    Figure("decode, 128 of context (fitted)", *_OWN, _DECODE, 128, 57.1, RERUN, 57.0, 57.2, "tokens/s"),
    Figure("decode, 512 of context", *_OWN, _DECODE, 512, 52.7, RERUN, unit="tokens/s"),
    Figure("slope, of a token of context", *_OWN, "slope", 128, 872, RERUN, 741.2, 1002.8, "cycles"),
    Figure("power in decode (fitted)", *_OWN, "power", 128, 45, PAPER, 44, 46, "W"),
    Figure("DSP slices", *_OWN, "dsp", 128, 6345, PAPER),
    Figure("block memories of 36 kbit", *_OWN, "bram", 128, 1252, PAPER),
    Figure("block memories of 288 kbit", *_OWN, "uram", 128, 792, PAPER),
    Figure("decode, 128 of context", *_U280, _DECODE, 128, 57.1, RERUN, 115, None, "tokens/s"),
    Figure("decode, 512 of context", *_U280, _DECODE, 512, 52.7, RERUN, 110, None, "tokens/s"),
    Figure("share of the memory's peak in decode", *_U280, "bandwidth_fraction", 128, 0.43, RERUN, 0.88, None, "%"),
    Figure("share of what the memory can stream", *_U280, "ceiling_fraction", 128, None, "", 0.95, None, "%"),
    Figure("prefill of 128 tokens", *_U280, "prefill_seconds", 128, None, "", None, 0.36, "s"),
    Figure("prefill of 512 tokens", *_U280, "prefill_seconds", 512, None, "", None, 1.45, "s"),
    Figure("share of the multipliers' peak in prefill", *_U280, "prefill_compute_fraction", 512, None, "", 0.85, None, "%"),
    Figure("tokens for a joule in decode", *_U280, "tokens_per_joule", 128, 55 / 45, PAPER, unit="tokens/J"),
    Figure("program, dense", "u280", "w4a8-g128", "program_bytes", 128, 3.25e9, PAPER, None, 16384, "bytes"),
    Figure("program, mixed N:M", *_U280, "program_bytes", 128, 3.25e9, PAPER, None, 65536, "bytes"),
    Figure("decode, 128 of context", *_VHK158, _DECODE, 128, 92.5, f"{PAPER}, simulated", 235, None, "tokens/s"),
    Figure("decode, 512 of context", *_VHK158, _DECODE, 512, 92.5, f"{PAPER}, simulated", 225, None, "tokens/s"),
)  # fmt: skip
"""Results to reach, in the order in which they are printed."""
MODEL = "llama-2-7b"
FAR = 512
"""Context of the other end of a slope."""
