"""Every number a verdict rests on, with its reason. Measured consequences: docs/experiments.md, the verdict's power."""

from __future__ import annotations

CONFIDENCE = 0.98
"""Two-sided, of every interval but the promotion's own: nominally a one-sided test at 1%. Measured, a challenger whose
truth lies exactly at a slice's margin passes that slice about twice as often."""

PROMOTION_CONFIDENCE = 0.995
"""Two-sided, of the difference a promotion rests on: nominally a one-sided test at 0.25%. At most 2.5% of equal
challengers may be promoted, and on a real night's differences (a few heavy users, who lose much) every bootstrap tried
promotes two to six times its nominal share; replays measure what is left of the bound. A night of the default world
tells 1% of reward ten standard errors from nothing, so the stricter level costs it nothing."""

SUPERIORITY = 0.0
"""Judged reward a request above the champion. Zero: the burden of proof lies in the interval, not in a margin."""

FLOOR = 0.0
"""Judged reward a request above the retriever's order. Zero: a ranker that is not shown to beat the order it was given
costs a model server and earns nothing; any larger number would be in units of a particular service's feedback."""

MINIMUM_USERS = 50
"""Below this many users too few heavy ones are among them for the spread of a night to be seen."""

RESAMPLES = 4000
"""The promotion's 0.25% point then rests on ten resamples: its Monte Carlo error is a tenth of a standard error."""

SLICE_MARGIN = 0.02
"""Share of the champion's judged reward on a slice that the challenger must be shown not to lose there. Tighter, and
slices of a hundred users could not be judged by the requests of one night; wider, and a loss that users of the slice
would notice could hide in a better mean."""

MINIMUM_SLICE_USERS = 50
"""A slice with fewer users tonight is too small to judge: not applicable, its size said."""

TOPIC_SLICES = 8
"""Topics judged on their own, those with most requests; the others together are one more slice."""

ANCHOR_MARGIN = 0.01
"""Share of the anchor's judged reward that the challenger must be shown not to lose against the version that was
champion a week ago: all that a week of promotions may lose together, were each a mistake."""

ANCHOR_DAYS = 7
"""How much older than tonight the anchor's reign is. A week holds every weekday once, so a promotion that only suited
its own day has met the others; much older versions know too little of today's items to be a yardstick."""

LATENCY_BUDGET_MS = 100.0
"""Of one request's list on one CPU, the 95% point over requests of each request's fastest try. The service promises
p99 under 100 ms (docs/architecture.md); a model that needs all of that alone cannot keep it. What else the machine
does only ever adds to a measurement, so the fastest of several tries is what the model itself costs."""

MAX_AGE_HOURS = 72
"""Older verdicts are stale: they have not seen what the days since hold."""

CLOCK_SKEW_HOURS = 0.25
"""A verdict from further in the future than machines' clocks differ was not judged by this night."""

SIZE_BUDGET_MB = 1024.0
"""Of the weights file. During a hot swap the server holds three models (champion, predecessor, the next one)."""
