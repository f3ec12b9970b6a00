"""serve_model: the ranking service: the champion over HTTP, and a log of what it served."""
