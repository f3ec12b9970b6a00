"""A/B tests in a workspace's simulated world: who takes part, what the policies know, what is kept.

policies.py   names (champion, version:3, retriever, ...) -> who answers requests
features.py   what the online store knows of the world's users and items, encoded once
outputs.py    WORKSPACE/experiments/<name>/: result.json and lifts.png
"""
