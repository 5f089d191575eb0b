"""The claims ledger: every claim of every executed notebook, its bound and the value measured."""

from dataclasses import dataclass

from book.errors import Complaints
from book.library import Book


@dataclass(frozen=True)
class Claim:
    """A claim as its cell proved it. `chapter` is the chapter's stem."""

    id: str
    statement: str
    bound: str
    measured: float
    chapter: str

    @property
    def anchor(self) -> str:
        return self.id.lower().replace(".", "-")


def facts(node, kind: str) -> list[dict]:
    """The metadata of all outputs of one kind ("claim", "figure", "source") in a notebook, in
    order.
    """
    outputs = (output for cell in node.cells for output in cell.get("outputs", ()))
    found = (output.get("metadata", {}).get("book", {}) for output in outputs)
    return [fact for fact in found if fact.get("kind") == kind]


def read_ledger(book: Book, notebooks: dict) -> list[Claim]:
    """All claims of the notebooks {stem: node}, in the order of the book. BookError if two
    claims share an id.
    """
    claims: dict[str, Claim] = {}
    complaints = Complaints()
    for stem, node in notebooks.items():
        for fact in facts(node, "claim"):
            claim = Claim(fact["id"], fact["statement"], fact["bound"], fact["measured"], stem)
            if claim.id in claims and claims[claim.id] != claim:
                complaints.add(
                    f"chapters/{stem}.py",
                    f"{claim.id} is claimed twice: {claims[claim.id].statement!r} and "
                    f"{claim.statement!r}",
                )
            claims[claim.id] = claim
    complaints.check()
    return sorted(claims.values(), key=lambda claim: tuple(map(int, claim.id[1:].split("."))))


def ledger_text(claims: list[Claim]) -> str:
    """The ledger for a terminal, one line a claim."""
    if not claims:
        return "no claims yet: no chapter has been executed"
    rows = [(c.id, f"{c.measured:.4g}", c.bound, c.statement) for c in claims]
    widths = [max(len(row[i]) for row in rows) for i in range(3)]
    return "\n".join(
        "  ".join([*(cell.ljust(w) for cell, w in zip(row, widths)), row[3]]) for row in rows
    )


def ledger_page(claims: list[Claim], titles: dict[str, str]) -> str:
    """The ledger as a page of the site."""
    lines = [
        "# Claims ledger",
        "",
        "Every numbered statement of the book is a cell that raises an error when it is false. "
        "This page is written from the"
        " executed notebooks: the bound was fixed before the measurement, the value was "
        "measured by the cell it links to.",
        "",
    ]
    if not claims:
        return "\n".join([*lines, "No chapter has been executed yet, so nothing is claimed."])
    for stem in dict.fromkeys(claim.chapter for claim in claims):
        lines += [
            f"## [{titles[stem]}](chapters/{stem}.md)",
            "",
            "| Claim | Statement | Must be | Measured |",
            "|---|---|---|---|",
        ]
        lines += [_row(claim) for claim in claims if claim.chapter == stem] + [""]
    return "\n".join(lines)


def _row(claim: Claim) -> str:
    statement = claim.statement.replace("|", "\\|")
    return (
        f"| [{claim.id}](chapters/{claim.chapter}.md#{claim.anchor}) | {statement} | "
        f"{claim.bound} | {claim.measured:.4g} |"
    )
