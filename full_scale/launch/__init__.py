"""How processes start and find each other: scripts, and the group they join. Imports
nothing of the other rooms."""
