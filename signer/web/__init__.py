"""The HTTP API: authenticates callers, parses requests and builds responses."""
