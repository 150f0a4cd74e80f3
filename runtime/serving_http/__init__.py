"""What the replica's and the router's HTTP servers do the same way.

One hardened uvicorn protocol, one error shape, request ids, API keys, offline docs, and a `serve`
that owns the signals. It knows nothing of engines, load or routing.
"""
