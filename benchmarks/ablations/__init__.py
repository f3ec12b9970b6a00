"""What each choice of the method is worth: `python -m benchmarks.ablations --study NAME|all`.

    settings.py        how large the studies are; the base arm that every study departs from
    arms.py            an arm: how groups are made, who scores them, by which objective; a study: its arms and claims
    signals.py         what may score lists: the guide, the true reward, the true reward with a planted error
    training.py        one arm, one seed: trained and judged by the true reward
    runs.py            runs kept one by one under a digest of all they depend on, as benchmarks/quality keeps its own
    tables.py          runs -> rows, in Markdown too;  figure.py  rows -> PNG, one a study

    objective.py       losses and temperatures, DPO and RCPO beside them, one option of the default changed
    group_size.py      3 to 100 lists, at equal temperature and at equal sharpness
    helpers.py         helpers left out one by one, one generator alone
    on_policy.py       own lists anew at every step, refreshed now and then, of the initial ranker, none
    normalisation.py   arms of the normalisation under a reward with planted bias
    ceiling.py         the reward degraded from the truth to noise
    choices.py         what the presets choose between, under a poor guide or a good one
    bound.py           the objective as a bound, in a world that can be written down (benchmarks/capacity_world.py)

World: the simulator, a seeded subsample of its requests. Every arm of a seed starts from the same encoder, learns from
the same requests in the same order and is asked for the same test requests. Nothing is tuned: the studies compare arms
with each other, and none with another method.
"""
