"""What is typed: flags and help, one file a subject. The work is in the modules of console/, imported when needed."""
