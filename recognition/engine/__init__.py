"""Detector and embedder: pictures in, boxes and vectors out. No Django here.

From what is on disk to answers: `installed` and `store`, `engines`, `loading`, `networks`,
`runtime`. Importing any of them loads neither paddle nor paddlex: only `ppshitu.py` touches
paddlex, and only when a network is really wanted.
"""
