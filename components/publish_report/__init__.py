"""Say how the night went: one result for machines, one page for people. Runs always, success or not."""
