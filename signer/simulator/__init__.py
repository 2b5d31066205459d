"""A card API to develop and test against: it issues challenges and verifies what the signer makes of them.

Its rules:

* It is true to the card API's public guides, and strict where they leave room: what it accepts, the card API accepts.
* It judges with other people's code (``http-message-signatures``, ``siwe``, ``eth_account``), never with the signer's
  own: a mistake shared by both sides would be invisible. It imports nothing of the signer but ``signer.domain``.
* Everything it can be told to do wrong is one row in one table (``signer.simulator.faults``).
* It writes down every delivery (``signer.simulator.ledger``), so that a test can ask what really arrived.

It lives in memory, has no access control on its admin surface (``/_sim``) and is never part of a production image.

``signer.simulator.settings`` is cheap to import; ``signer.simulator.app`` brings in siwe and web3.
"""
