"""Asks the registered version logged requests, in a fresh process as the server runs it, and checks every answer."""
