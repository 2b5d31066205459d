"""The settings: one TOML file and the environment, loaded and validated once.

``settings`` puts the sections together and loads them, ``showing`` prints them. A section is defined next to
the code that uses it, or in ``sections``. ``config/default.toml`` lists every setting with its default.
"""
