"""`goalrank ui`: the workspace as local pages. Nights, their reports and Data Docs, and a playground for lists.

    serve.py        listen, open a browser, run
    app.py          routes, headers, which hosts may be named
    nights.py       the front page: what became of every night
    files.py        reports and Data Docs, and no other file
    playground.py   what the page asks for: users, requests, lists, opinions on lists
    requests.py     the logged requests of the newest snapshot
    lists.py        champion, challenger and reward model on one request
    static/         the playground's page, script and style

Nothing is written, nothing is asked from outside, and it listens on loopback unless told otherwise. Whoever reaches it
can read reports and titles: there is no password.
"""
