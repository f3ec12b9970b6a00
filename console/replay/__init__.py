"""`goalrank replay`: thirty simulated days, retrained every night, against the model of the first night, frozen.

life.py          the days and nights in their order; an interrupted replay goes on where it stopped
world.py         the world that is lived in, and how its traffic is shared out
traffic.py       a day served: champion, frozen model, retriever; what was shown becomes the next night's logs
faults.py        what goes wrong on purpose: a bad-data night, a drifting night, a broken challenger
bad_release.py   the broken challenger's cause, put in front of Python's path for that one night
ledger.py        WORKSPACE/replay.json: what has been lived so far
history.py       nights and days as one document, with the value of retraining and its interval
drawing.py       the curve as a picture
"""
