"""Redis, behind the ports ``ChallengeStore`` and ``CustomerIntents``: one server, Sentinel, or a cluster.

``challenge_store`` is the records, ``scripts`` and ``lua`` their moves, ``answers`` what a script answers. ``calls`` is
the one way in which Redis is called; ``topology`` says where a call goes, ``sentinel`` and ``cluster`` follow it,
``asking`` asks many servers at once, ``node`` is one. ``client`` opens all that by ``settings`` and their ``urls``;
``connections`` are its connections.
"""
