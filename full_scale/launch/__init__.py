"""How processes start and find each other: scripts, and the group they join. Touches no other
room.
"""

from full_scale.launch.memory import within_memory
from full_scale.launch.peers import is_loss, quiet
from full_scale.launch.processes import (
    Processes,
    agree,
    asked,
    average,
    gathered,
    gathered_objects,
    joined,
    launched,
    node_size,
    place,
    start,
    stop,
    told,
)

__all__ = [
    "is_loss",
    "quiet",
    "Processes",
    "agree",
    "asked",
    "average",
    "gathered",
    "gathered_objects",
    "joined",
    "launched",
    "node_size",
    "place",
    "start",
    "stop",
    "told",
    "within_memory",
]
