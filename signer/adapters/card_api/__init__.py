"""The card API's client: ``client`` implements the port ``CardApi``."""
