"""First step of the night: the arrival days it is about to read, against the data contract."""
