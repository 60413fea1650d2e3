"""PaddleX's HTTP interface: clients of `paddlex --serve --pipeline PP-ShiTuV2` work unchanged.

It translates and decides nothing. What it must look like was recorded from PaddleX 3.7.2
(`tests/paddlex/`); what is added and what differs is in `docs/from-paddlex.md`.
"""
