"""Orders over HTTP with FastAPI; see `app.py`."""
