"""The training text: documentation that every Python installation carries.

Two sources, neither of which needs a download: the help topics behind
``help("with")`` (``pydoc_data.topics``) and the docstrings and comments of the
standard library, read from its source so that no module is ever imported.
"""

import ast
import hashlib
import inspect
import re
import sysconfig
from collections.abc import Iterator
from pathlib import Path

END_OF_TEXT = "<|endoftext|>"

SKIPPED_FOLDERS = {"site-packages", "dist-packages"}
HELD_OUT_SHARE = 0.03
LONG_PARAGRAPH = 100
PROSE_SHARE = 0.85
SHORTEST_COMMENT = 40
CALIBRATION_DOCUMENTS = 24
CALIBRATION_CHARACTERS = 480

Document = tuple[str, str]
"""A name (``topic:with``, ``module:asyncio.locks``) and its text."""


def topic_documents() -> Iterator[Document]:
    """Yield one document per help topic, in order of name."""
    from pydoc_data.topics import topics

    for name in sorted(topics):
        yield f"topic:{name}", topics[name]


def module_documents(library: Path | None = None) -> Iterator[Document]:
    """Yield up to two documents per module: its docstrings and its comments."""
    library = library or Path(sysconfig.get_path("stdlib"))
    for path in sorted(library.rglob("*.py")):
        relative = path.relative_to(library)
        if SKIPPED_FOLDERS.intersection(relative.parts):
            continue
        try:
            source = path.read_text(encoding="utf-8")
            tree = ast.parse(source)
        except (SyntaxError, ValueError):
            continue
        name = ".".join(relative.with_suffix("").parts)
        yield f"module:{name}", "\n\n".join(docstrings(tree))
        yield f"comments:{name}", "\n\n".join(comments(source))


def comments(source: str) -> Iterator[str]:
    """Yield the comments that look like prose, without their marks."""
    for block in re.findall(r"(?:^[ \t]*#.*\n)+", source, re.MULTILINE):
        text = "\n".join(re.sub(r"^[ \t]*#+ ?", "", line) for line in block.splitlines())
        letters = sum(c.isalpha() or c.isspace() for c in text)
        if len(text) >= SHORTEST_COMMENT and letters > PROSE_SHARE * len(text):
            yield text


def docstrings(node: ast.AST) -> Iterator[str]:
    """Yield the docstring of ``node`` and those of everything defined inside it."""
    if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
        text = ast.get_docstring(node, clean=False)
        if text:
            yield inspect.cleandoc(text)
    for child in ast.iter_child_nodes(node):
        yield from docstrings(child)


def is_held_out(name: str) -> bool:
    """Say, from a hash alone, whether a topic or a module is kept out of training."""
    digest = hashlib.sha256(name.replace("comments:", "module:").encode()).digest()
    return int.from_bytes(digest[:4], "big") < HELD_OUT_SHARE * 2**32


def paragraphs(text: str) -> list[str]:
    """Return the paragraphs of ``text`` without trailing spaces and tabs."""
    lines = "\n".join(line.rstrip() for line in text.expandtabs().splitlines())
    return [block.strip("\n") for block in re.split(r"\n{2,}", lines) if block.strip()]


def deduplicate(documents: list[Document]) -> list[Document]:
    """Drop each long paragraph that an earlier document, or the same one, contained.

    Paragraphs of that length recur only where text was copied.  Short ones,
    such as "Return a copy.", recur because people write that way, and stay.
    """
    seen: set[str] = set()
    result = []
    for name, text in documents:
        kept = []
        for block in paragraphs(text):
            key = " ".join(block.lower().split())
            if len(key) < LONG_PARAGRAPH or key not in seen:
                kept.append(block)
            seen.add(key)
        if kept:
            result.append((name, "\n\n".join(kept)))
    return result


def collect() -> tuple[list[Document], list[Document]]:
    """Return the training documents and the held-out documents.

    Training documents are deduplicated first, so that no long paragraph of
    the held-out text occurs in training.  The comments of held-out modules
    are used for neither.
    """
    documents = [*topic_documents(), *module_documents()]
    ordered = sorted(documents, key=lambda document: is_held_out(document[0]))
    clean = deduplicate(ordered)
    train = [document for document in clean if not is_held_out(document[0])]
    held_out = [
        (name, text)
        for name, text in clean
        if is_held_out(name) and not name.startswith("comments:")
    ]
    return train, held_out


def join(documents: list[Document]) -> str:
    """Return the documents as one text, an end-of-text mark before, between and after."""
    return END_OF_TEXT + "".join(f"{text}\n{END_OF_TEXT}" for _, text in documents)


def calibration_documents(documents: list[Document]) -> list[Document]:
    """Return the beginnings of documents spread evenly over those for training: what compression is calibrated on."""
    chosen = documents[:: max(1, len(documents) // CALIBRATION_DOCUMENTS)]
    return [(name, text[:CALIBRATION_CHARACTERS]) for name, text in chosen]
