"""A simulated card API for development and tests: it issues challenges and verifies signatures.

Its rules:

* It follows the card API's public guides, and is strict where they are open: what it accepts, the card API accepts.
* It verifies with third-party libraries (``http-message-signatures``, ``siwe``, ``eth_keys``), never with the signer's
  code: a mistake shared by both sides would be invisible.
* Every simulated fault is one row in one table (``signer.simulator.faults``).
* It records every delivery (``signer.simulator.ledger``), so that a test can check what arrived.

It keeps its state in memory, has no access control on its admin API (``/_sim``) and is not for production.

``signer.simulator.settings`` is cheap to import; ``signer.simulator.app`` imports siwe and web3.
"""
