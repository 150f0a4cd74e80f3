"""The operator: makes the cluster hold what each ServingDeployment says, and keeps it so.

Level-triggered: a reconcile reads what is there, `plan` decides with no clock and no I/O of its
own, `cluster` carries it out. kopf only watches and hosts.
"""
