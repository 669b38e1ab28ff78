"""Draws `architecture.svg`, the picture of the processor in the README: ``python docs/draw_architecture.py``."""

from html import escape
from pathlib import Path

WIDTH, HEIGHT = 940, 470
UNIT, BUFFER, HOST, MEMORY = "#2b6ca3", "#e8eef4", "#f4ead8", "#dfeee4"
Point = tuple[float, float]


class Picture:
    """An SVG text that grows."""

    def __init__(self) -> None:
        self.lines = [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" font-size="13">',
            '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
            '<path d="M0 0L8 4L0 8z" fill="#444"/></marker></defs>',
            f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
        ]

    def box(
        self, x: float, y: float, width: float, height: float, colour: str, title: str, *notes: str
    ) -> None:
        """A box with a title and smaller lines below it, in the middle."""
        ink = "white" if colour == UNIT else "#222"
        self.lines.append(
            f'<rect x="{x}" y="{y}" width="{width}" height="{height}" rx="5" fill="{colour}" stroke="#667"/>'
        )
        top = y + height / 2 - 8 * len(notes) + 5
        self._text(x + width / 2, top, title, ink, "bold" if colour == UNIT else "normal", 13)
        for number, line in enumerate(notes, 1):
            self._text(x + width / 2, top + 16 * number, line, ink, "normal", 11)

    def _text(self, x: float, y: float, text: str, ink: str, weight: str, size: int) -> None:
        self.lines.append(
            f'<text x="{x}" y="{y:g}" fill="{ink}" font-weight="{weight}" font-size="{size}" text-anchor="middle">{escape(text)}</text>'
        )

    def arrow(
        self, *points: Point, label: str = "", at: Point = (0, 0), dashed: bool = False
    ) -> None:
        """A line through the points with a tip at its end."""
        path = " ".join(f"{x:g},{y:g}" for x, y in points)
        dash = ' stroke-dasharray="4 3"' if dashed else ""
        self.lines.append(
            f'<polyline points="{path}" fill="none" stroke="#444" stroke-width="1.4" marker-end="url(#tip)"{dash}/>'
        )
        if label:
            self._text(*at, label, "#444", "normal", 11)

    def text(self) -> str:
        """The whole file."""
        return "\n".join([*self.lines, "</svg>"]) + "\n"


def draw() -> str:
    """The picture."""
    p = Picture()
    p.box(20, 20, 120, 54, HOST, "host", "AXI4-Lite")
    p.box(200, 20, 210, 54, HOST, "control", "start, status, error, counters")
    p.box(480, 20, 150, 54, BUFFER, "tokens", "prompt and answer")
    p.box(700, 20, 130, 54, UNIT, "SYS", "next token, stop")
    p.arrow((140, 47), (199, 47))
    p.arrow((410, 47), (479, 47))
    p.arrow((630, 40), (699, 40))
    p.arrow((700, 56), (631, 56))

    p.box(20, 150, 120, 170, UNIT, "LD", "load", "sequencer")
    p.box(200, 140, 130, 44, BUFFER, "stream ring", "weights, K, V")
    p.box(200, 200, 130, 44, BUFFER, "scale ring", "group scales")
    p.box(200, 285, 130, 44, BUFFER, "input", "norms, RoPE, embedding")
    p.arrow((140, 162), (199, 162))
    p.arrow((140, 222), (199, 222))
    p.arrow((140, 307), (199, 307))

    p.box(390, 130, 130, 125, UNIT, "MPE", "matrix engine", "INT8 x INT8/INT4", "sequencer")
    p.arrow((330, 162), (389, 162))
    p.arrow((330, 222), (389, 222))

    p.box(580, 130, 110, 44, BUFFER, "result", "FP32")
    p.box(580, 200, 110, 44, BUFFER, "activation", "INT8, and scales")
    p.arrow((520, 152), (579, 152))
    p.arrow((580, 222), (521, 222))

    p.box(
        740,
        130,
        130,
        220,
        UNIT,
        "SFU",
        "vector unit, FP32",
        "norm, softmax, SiLU,",
        "RoPE, quantize, arg-max",
        "sequencer",
    )
    p.arrow((690, 152), (739, 152))
    p.arrow((740, 222), (691, 222))
    p.arrow((330, 307), (739, 307), label="", at=(0, 0))
    p.arrow((765, 130), (765, 75), label="arg-max", at=(793, 108))

    p.box(580, 320, 110, 44, BUFFER, "vector, scalars", "FP32")
    p.arrow((690, 335), (739, 335))
    p.arrow((740, 347), (691, 347))

    p.box(390, 375, 130, 60, UNIT, "ST", "store, sequencer")
    p.box(580, 385, 110, 44, BUFFER, "store", "new K and V")
    p.arrow((805, 350), (805, 407), (691, 407))
    p.arrow((580, 407), (521, 407))

    p.box(20, 375, 310, 60, MEMORY, "memory", "one AXI4 port a channel, all in lockstep")
    p.arrow((80, 375), (80, 321))
    p.arrow((390, 407), (331, 407))
    p.lines.append(
        '<text x="470" y="458" fill="#444" font-size="11" text-anchor="middle">Each unit runs its own instructions; '
        "tokens between pairs of units are the only synchronization.</text>"
    )
    return p.text()


if __name__ == "__main__":
    (Path(__file__).parent / "architecture.svg").write_text(draw(), encoding="utf-8")
