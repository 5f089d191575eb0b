"""Keeps a notebook light: its PNGs get a palette, and a chapter's pictures together keep to a
budget.
"""

import base64
import io

from book.chapter import Chapter
from book.errors import BookError

COLOURS = 64
BUDGET = 300_000


def shrink(chapter: Chapter, node) -> None:
    """Quantise every PNG of an executed notebook in place. BookError names the heavy cells if
    the budget is exceeded.
    """
    sizes: dict[str, int] = {}
    for cell in node.cells:
        for output in cell.get("outputs", ()):
            png = output.get("data", {}).get("image/png")
            if png:
                output["data"]["image/png"] = quantised(png)
                sizes[cell["id"]] = sizes.get(cell["id"], 0) + len(output["data"]["image/png"])
    if sum(sizes.values()) > BUDGET:
        heavy = ", ".join(
            f"{id} {size / 1000:.0f} kB"
            for id, size in sorted(sizes.items(), key=lambda item: -item[1])[:3]
        )
        raise BookError(
            f"chapters/{chapter.path.name}: its pictures take {sum(sizes.values()) / 1000:.0f} "
            f"kB of {BUDGET / 1000:.0f} kB;"
            f" the heaviest are {heavy}: draw fewer points, or smaller figures"
        )


def quantised(png: str) -> str:
    """A base64 PNG with at most 64 colours, the same bytes each time.

    Median cut would spend them where most pixels are: beside much near-white, red became purple.
    """
    from PIL import Image

    image = Image.open(io.BytesIO(base64.b64decode(png))).convert("RGB")
    how = dict(method=Image.Quantize.MAXCOVERAGE, kmeans=2, dither=Image.Dither.NONE)
    small = io.BytesIO()
    image.quantize(COLOURS, **how).save(small, format="PNG", optimize=True)
    return base64.b64encode(small.getvalue()).decode("ascii")
