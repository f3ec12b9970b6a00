"""`goalrank report`: a night's page again, two nights side by side, and the page of all nights.

Every night that ends writes the page of all nights, so it is there without asking. Pages are self-contained as the
nightly report is (components/publish_report/), and quote no rows: whoever is erased is erased in the nights' folders.
"""
