"""GoalRank against the whole field under equal conditions: `python -m benchmarks.quality --world movielens|simulator`.

    settings.py         how large the study is, and every method's tuning trials
    features.py         logs -> training set with numpy: the night's features, without Spark and Feast
    problem.py          what a world hands to the study: requests to learn from, to select on, to report
    movielens.py        the offline protocol on MovieLens-1M, both kinds of candidates
    simulated.py        the simulated world and its truth: true reward, engagement at a place
    methods.py          every method by its name: trained, and asked for lists and scores
    ours.py             GoalRank, apart from the field so that the field's finished runs do not depend on it
    search.py           long search of a reward model's best list
    guide_measures.py   a reward model's opinion of lists against their true reward
    stages.py           one piece of work each (data, encoder, guide, run, ...), kept in a cache of digests
    study.py            the pieces in order, on several processes, with an estimate
    statistics.py       paired tests over requests and over seeds, Holm's correction, spread over seeds
    comparison.py       the figures of all methods, ours tested against each rival's
    tables.py           results -> rows: methods, seeds, trials, cost
    truth_rows.py       ... the best lists, and each method's regret in its parts
    guide_rows.py       ... the guides, on held-out requests and by the truth
    learning_curves.py  ... how training went, in the JSON alone
    claims.py           comparison -> claims;  figure.py  rows -> PNG

Equal conditions: the same requests, features, pretrained encoder and guide (of a seed and a width), as many optimiser
steps over all parts of a method, about as many parameters at serving time, as many tuning trials, chosen on validation
requests alone (seed 0), reported on test requests.
"""
