"""Calls to Redis: one server, the primary that Sentinels appoint, or a cluster. It knows nothing about challenges.

``opening`` creates ``calls.RedisCalls`` from the ``settings``. ``topology`` chooses the server of each call;
``sentinel`` and ``cluster`` discover it, with ``refresher`` and ``query``. ``node`` is one server with its
``connections``; ``failures`` classifies errors.
"""
