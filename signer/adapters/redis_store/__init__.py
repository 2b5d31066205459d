"""The ports ``ChallengeStore`` and ``CustomerIntents`` over Redis.

``challenge_store`` implements the moves with the scripts in ``lua``, which ``scripts`` loads; ``script_results`` parses
what they return. ``due_indexes`` finds what is due. ``weaknesses`` finds server settings that break the guarantees.
"""
