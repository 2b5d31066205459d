"""The settings: one TOML file and the environment, loaded and validated once.

``sections`` holds a class for most sections of the file, the others stand beside their code; ``settings`` puts the
sections together and reads them, ``showing`` prints them. ``config/default.toml`` lists every setting with its default.
"""
