"""An inventory over HTTP with Flask; see `app.py`."""
