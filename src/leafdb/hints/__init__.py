"""Writes owed to an absent replica: their bytes, their bounds, their way home. Pure; driven by the node's handoff."""
