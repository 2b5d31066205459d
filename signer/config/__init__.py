"""The settings: one TOML file and the environment, read once, checked whole, frozen.

``sections`` holds a class for each section of the file, ``values`` the kinds of value in them; ``settings`` puts the
sections together and reads them, ``showing`` prints them. ``config/default.toml`` lists every setting with its default.
"""
