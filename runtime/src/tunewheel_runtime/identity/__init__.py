"""Identity and access: who calls, and what the caller may do. The same rules hold for HTTP requests and for
events that people cause.

``roles``: the roles of a caller by project. ``limits``: rate limits and budgets. ``keys``: the file of hashed
API keys. ``tokens`` and ``signing_keys``: tokens of an OIDC issuer. ``access``: finds the caller of a request
or an event. ``guard``: checks the role that a route needs. ``command_keys`` and ``signatures``: which service
published a command.
"""
