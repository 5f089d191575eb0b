"""How processes start and find each other: scripts, and the group they join. Touches no other
room.
"""

from full_scale.launch.processes import (
    Processes,
    agree,
    average,
    gathered,
    launched,
    place,
    start,
    stop,
    told,
)

__all__ = [
    "Processes",
    "agree",
    "average",
    "gathered",
    "launched",
    "place",
    "start",
    "stop",
    "told",
]
