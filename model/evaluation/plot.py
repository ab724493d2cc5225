"""A drawing of what rounding cost each layer's matrices."""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

# The matrices of a layer, as a checkpoint names them and as people call them.
MATRICES = {
    "self_attention.query_key_value": "query, key, value",
    "self_attention.dense": "attention's output",
    "mlp.dense_h_to_4h": "up",
    "mlp.dense_4h_to_h": "down",
}
_NAME = re.compile(r"h\.(\d+)\.(" + "|".join(map(re.escape, MATRICES)) + r")\.weight")


def errors_by_layer(errors: Iterable[object]) -> dict[str, list[float]]:
    """Return each kind of matrix's relative errors, from the first layer to the last.

    `errors` are those of a baked file's description; empty where it holds none.
    """
    found: dict[str, dict[int, float]] = {}
    for error in errors:
        if isinstance(error, Mapping) and (name := _NAME.fullmatch(str(error.get("name")))):
            found.setdefault(MATRICES[name[2]], {})[int(name[1])] = float(error["relative"])
    return {kind: [each[layer] for layer in sorted(each)] for kind, each in found.items()}


def draw(errors: Mapping[str, list[float]], title: str, path: Path) -> None:
    """Draw errors by layer into `path`, whose suffix says the kind of picture.

    Needs matplotlib.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot
    from matplotlib.ticker import MaxNLocator

    figure, axes = pyplot.subplots(figsize=(8, 4.5), layout="constrained")
    for kind, values in errors.items():
        axes.plot(range(len(values)), [100 * each for each in values], marker="o", label=kind)
    axes.set(xlabel="layer", ylabel="rounding error, % of the weights' size", title=title)
    axes.set_ylim(bottom=0)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.3)
    axes.legend()
    settings: dict[str, Any] = {"metadata": {"Date": None}} if path.suffix == ".svg" else {}
    partial = path.with_name(f".{path.name}.partial{path.suffix}")
    try:
        figure.savefig(partial, dpi=130, **settings)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
        pyplot.close(figure)
