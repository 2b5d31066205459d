"""The card API's client, behind the port ``CardApi``: ``client`` is its door."""
