"""Sends each request to the replica that owes the least, and never counts anything twice.

Layers, top to bottom: app > proxy | discovery | reports | dashboard > admission > policy |
load_table > account > ledger > replica > errors. A policy sees values, never a web request.
"""
