"""What became of a source's rows: every bad one by name, in report.json and report.txt, and
the counts in a closing line.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dlib._util import require
from full_scale.data import shards
from full_scale.out import manifest


KEPT = {
    "truncated": "captions are longer than the text encoder reads; kept, the end is cut off",
    "enlarged": "pictures are smaller than the network's; kept, enlarged",
    "several": "captions are the first of several; the others are not read",
}
"""What the report says of rows that are kept, by the name of their list."""


def write(out: Path, records: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Write both reports from the shards' records, and return what report.json says."""
    bad = [
        dict(zip(("key", "where", "reason", "detail"), row))
        for record in records
        for row in record["bad"]
    ]
    named = {name: [key for record in records for key in record.get(name, ())] for name in KEPT}
    summary = {
        "read": sum(record["read"] for record in records),
        "kept": sum(record["kept"] for record in records),
        "bad": len(bad),
        **{name: len(keys) for name, keys in named.items()},
        "shards": len(records),
        "reasons": dict(Counter(row["reason"] for row in bad)),
        "bad_rows": bad,
        **{f"{name}_keys": keys for name, keys in named.items()},
    }
    shards.write_json(out / "report.json", summary)
    half = out / ".half-report.txt"
    text = "\n".join(lines(summary)) + "\n"
    half.write_text(text, encoding="utf-8", errors="backslashreplace")
    manifest.flush(half)
    os.replace(half, out / "report.txt")
    return summary


def lines(summary: Mapping[str, Any]) -> list[str]:
    """The report for people."""
    text = [
        f"{summary['kept']} of {summary['read']} rows were kept, {summary['bad']} are bad and "
        "were left out."
    ]
    for reason, count in summary["reasons"].items():
        text += ["", f"{reason} ({count}):"]
        text += [
            f"    {row['key']}  [{row['where']}]  {row['detail']}".rstrip()
            for row in summary["bad_rows"]
            if row["reason"] == reason
        ]
    for name, what in KEPT.items():
        if summary[name]:
            text += [
                "",
                f"{what} ({summary[name]}):",
                *(f"    {key}" for key in summary[f"{name}_keys"]),
            ]
    return text


def reasons(summary: Mapping[str, Any]) -> str:
    """The counts of bad rows in words."""
    return ", ".join(f"{count} × {reason}" for reason, count in summary["reasons"].items())


def enough(out: Path, summary: Mapping[str, Any]) -> None:
    """Raise ValueError, with the first bad row, if no row was good or more than half were bad."""
    first = next(iter(summary["bad_rows"]), {"key": "", "where": "", "reason": "", "detail": ""})
    require(
        summary["kept"] > 0 and 2 * summary["bad"] <= summary["read"],
        f"{summary['bad']} of {summary['read']} rows are bad "
        f"({reasons(summary)}); the first: {first['key']} [{first['where']}] {first['reason']} "
        f"{first['detail']}. The data are not marked "
        f"as complete. All are named in {out / 'report.txt'}: put the source right, delete "
        f"{out}, and run again",
    )


def closing(out: Path, summary: Mapping[str, Any], pictures: bool) -> str:
    """What the command says at its end."""
    text = [
        f"{out}: {summary['kept']} rows of "
        f"{'latents and texts' if pictures else 'texts alone'} in {summary['shards']} shards."
    ]
    if summary["bad"]:
        text.append(
            f"BAD ROWS: {summary['bad']} of {summary['read']} were left out "
            f"({reasons(summary)}); "
            f"each is named in {out / 'report.txt'}."
        )
    if summary["truncated"]:
        text.append(
            f"{summary['truncated']} captions are longer than the text encoder reads and were "
            "cut."
        )
    if summary["enlarged"]:
        text.append(
            f"{summary['enlarged']} pictures were smaller than the network's and were enlarged."
        )
    if summary["several"]:
        text.append(f"Of {summary['several']} rows with several captions the first was taken.")
    return " ".join(text)
