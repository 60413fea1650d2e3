"""Detector and embedder: pictures in, boxes and vectors out. No Django here.

Importing this package, or `types`, `registry`, `devices`, `store` and `runtime`, loads neither
paddle nor paddlex: only `ppshitu.py` does, and only when a network is really wanted.
"""
