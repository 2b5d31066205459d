"""The HTTP API: reads requests, knows callers, words answers. It decides nothing about challenges."""
