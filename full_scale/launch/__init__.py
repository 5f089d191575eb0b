"""How processes start and find each other: scripts, and the group they join. Touches no other
room.
"""
