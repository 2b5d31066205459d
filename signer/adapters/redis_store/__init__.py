"""Redis, behind the ports ``ChallengeStore`` and ``CustomerIntents``.

``challenge_store`` is the records, ``scripts`` and ``lua`` their moves, ``answers`` what a script answers; ``client``
opens Redis by the settings, ``connections`` are its connections, ``calls`` is the one way in which it is called.
"""
