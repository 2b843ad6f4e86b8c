"""Who asks, and what they may do: the same for every HTTP door and for every event that people cause.

``roles``: what a caller may do, and in which projects. ``limits``: how much of it. ``keys``: the file of
hashed API keys. ``tokens`` and ``signing_keys``: the tokens of an OIDC issuer. ``access``: from a request or
an event to its caller. ``guard``: each route names the role that it needs.
"""
