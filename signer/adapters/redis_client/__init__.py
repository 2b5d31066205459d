"""Calls to Redis: one server, the primary that Sentinels name, or a cluster. It knows nothing of challenges."""
