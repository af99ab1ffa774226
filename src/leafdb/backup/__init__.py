"""Backups of a cluster: what is in one, whether it is sound, and the records it holds. Read without any cluster."""
