"""What operator, router and runtime agree on, and nothing else.

Glossary: a *replica* is one model copy with its own KV cache; a *rank* one worker process on one
device of a replica; a *device group* the devices that one replica owns; a *step* one forward pass;
*pending tokens* the work a replica still owes; a *reservation* the router's charge for a request
that the replica has not acknowledged; a *load report* what a replica says of itself.

Standard library, pydantic and PyYAML only, so that every component and image can import it.
"""
