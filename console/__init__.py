"""What a person touches: the command line, its settings, and the view of a night that runs."""
